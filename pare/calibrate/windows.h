// Texts become token windows of one length, the same for the same seed on any machine.
#pragma once

#include <cstdint>
#include <vector>

#include "pare/calibrate/corpus.h"
#include "pare/tokenizer/tokenizer.h"

namespace pare {

struct TokenWindows {
  std::vector<std::vector<int32_t>> windows;  // each of `length` tokens, BOS in front where the tokenizer adds one
  int64_t length = 0;
  int64_t available = 0;  // windows the text would have given
  int64_t tokens() const { return static_cast<int64_t>(windows.size()) * length; }
};

// Documents are encoded one by one, joined in order and cut; of more windows than `samples`, evenly spaced ones are
// taken, so that every part of the text is heard. `seed` shifts the cuts. A text shorter than one window gives one
// shorter window. Throws Error when there are fewer than two tokens.
TokenWindows cut_windows(const Corpus& corpus, const Tokenizer& tokenizer, int64_t samples, int64_t length,
                         uint64_t seed);

}  // namespace pare
