// Text to token ids and back, exactly as the reference of each family does it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pare/base/metadata.h"

namespace pare {

struct EncodeOptions {
  bool add_special = true;    // what the tokenizer itself adds in front and behind (BOS, EOS)
  bool parse_special = true;  // special tokens spelt in the text become their ids
};
struct DecodeOptions {
  bool skip_special = false;
};

struct TokenInfo {
  std::string piece;  // as the vocabulary spells it ("Ġthe", "▁the", "<0x0A>")
  enum class Kind : uint8_t { normal, unknown, control, user_defined, unused, byte } kind = Kind::normal;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // From an HF directory: tokenizer.json, else tokenizer.model, else vocab.json + merges.txt. Throws Error saying what
  // was looked for.
  static std::shared_ptr<const Tokenizer> from_directory(const std::filesystem::path& directory);
  // From the tokenizer.ggml.* keys of a GGUF file.
  static std::shared_ptr<const Tokenizer> from_metadata(const Metadata& metadata, const std::string& where);

  virtual std::vector<int32_t> encode(
      std::string_view text, const EncodeOptions& options = {}) const = 0;  // throws Error on text that is not UTF-8
  virtual std::string decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const = 0;
  virtual int64_t vocabulary_size() const = 0;
  virtual TokenInfo token(int32_t id) const = 0;
  virtual std::optional<int32_t> id_of(std::string_view piece) const = 0;
  virtual std::optional<int32_t> bos() const = 0;
  virtual std::vector<int32_t> eos() const = 0;  // every id that ends generation
  virtual bool adds_bos() const = 0;
};

// Decodes a growing sequence and gives out only whole characters.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, std::span<const int32_t> prompt = {});
  ~StreamDecoder();
  std::string push(int32_t id);  // the new text, perhaps empty
  std::string finish();          // what was held back, with U+FFFD for broken bytes

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The tokenizer.ggml.* keys of a model directory, as the reference converter writes them (formats.md §3.8).
// `vocabulary_size` is the model's: missing ids become "[PADi]", added tokens beyond it are left out. Two deliberate
// differences: a SentencePiece-type tokenizer that comes only as tokenizer.json gets minus the merge rank as scores
// (the reference writes -1000 everywhere, and llama.cpp, which merges by score, then tokenizes wrongly) and is padded
// like the others. `tokenizer.ggml.pre` follows from the parsed pre-tokenizer; throws Error when readers know no name
// for it.
Metadata gguf_vocabulary(const std::filesystem::path& directory, int64_t vocabulary_size);

}  // namespace pare
