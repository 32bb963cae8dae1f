// A tokenizer as tokenizer.json describes it; every other kind of file is brought into this form.
//   text -> added tokens cut out -> normalizer -> added tokens cut out -> pre-tokenizer -> BPE -> ids -> template
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "pare/tokenizer/added_tokens.h"
#include "pare/tokenizer/bpe.h"
#include "pare/tokenizer/decoder.h"
#include "pare/tokenizer/normalizer.h"
#include "pare/tokenizer/pretokenizer.h"
#include "pare/tokenizer/tokenizer.h"
#include "pare/tokenizer/vocabulary.h"

namespace pare::tok {

// The tokens that have a role.
struct SpecialIds {
  std::optional<int32_t> bos;
  std::vector<int32_t> eos;  // every id that ends generation
};

struct PipelineParts {
  std::shared_ptr<const Vocabulary> vocabulary;  // with the added tokens
  Bpe bpe;
  Normalizer normalizer;
  Pretokenizer pretokenizer;
  Decoder decoder;
  std::vector<AddedToken> added;
  std::vector<int32_t> prefix, suffix;  // what add_special puts around the text
  SpecialIds special;
  std::string where;  // the file, for messages
};

class Pipeline : public Tokenizer {
 public:
  explicit Pipeline(PipelineParts parts);
  ~Pipeline() override;

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options) const override;
  int64_t vocabulary_size() const override { return parts_.vocabulary->size(); }
  TokenInfo token(int32_t id) const override;
  std::optional<int32_t> id_of(std::string_view piece) const override { return parts_.vocabulary->find(piece); }
  std::optional<int32_t> bos() const override { return parts_.special.bos; }
  std::vector<int32_t> eos() const override { return parts_.special.eos; }
  bool adds_bos() const override;

 private:
  struct Workspace;
  // Workspaces (with the words already seen) outlive a call and serve the next, whichever thread makes it.
  class Loan;
  void encode_text(std::string_view text, const EncodeOptions& options, Workspace& work,
                   std::vector<int32_t>& ids) const;
  void encode_normalized(std::string_view text, bool begins_input, Workspace& work, std::vector<int32_t>& ids) const;

  PipelineParts parts_;
  TokenFinder raw_, normalized_;
  // How a token is written when decoding, where that is not its piece: one sought in the normalized text is written as
  // it looks there, and is then no longer taken for special. So does the reference.
  std::unordered_map<int32_t, std::string> written_;
  std::vector<bool> skipped_;  // by id: left out with skip_special
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace pare::tok
