// What stands around the BPE of a SentencePiece-type tokenizer: spaces become ▁, one more is put in front.
#pragma once

#include "pare/tokenizer/decoder.h"
#include "pare/tokenizer/normalizer.h"
#include "pare/tokenizer/pretokenizer.h"

namespace pare::tok {

struct SpmSteps {
  Normalizer normalizer;
  Pretokenizer pretokenizer;
  Decoder decoder;
};

// `every_segment`: also behind each special token of the text, not only at its beginning.
inline SpmSteps spm_steps(bool prefix, bool every_segment) {
  const std::string mark = "\xe2\x96\x81";
  SpmSteps steps;
  std::vector<NormalizerStep> normalizer;
  if (prefix && every_segment) normalizer.emplace_back(Prepend{mark});
  normalizer.emplace_back(Replace{{" ", std::nullopt}, mark});
  if (prefix && !every_segment) {
    normalizer.clear();
    steps.pretokenizer = Pretokenizer({Metaspace{mark, Metaspace::Prepend::first, false}});
  }
  steps.normalizer = Normalizer(std::move(normalizer));
  std::vector<DecoderStep> decoder{ReplaceEach{{{mark, std::nullopt}, " "}}, JoinByteTokens{}, Fuse{}};
  if (prefix) decoder.emplace_back(StripEach{" ", 1, 0});
  steps.decoder = Decoder(std::move(decoder));
  return steps;
}

}  // namespace pare::tok
