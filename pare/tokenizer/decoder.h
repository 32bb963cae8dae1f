// The decoders of tokenizer.json: a flat list of steps over the spelling of each token.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "pare/base/json.h"
#include "pare/tokenizer/normalizer.h"

namespace pare::tok {

struct ReplaceEach {
  Replace replace;
};
struct JoinByteTokens {};  // runs of <0xNN> become the text they spell, or one U+FFFD per byte
struct Fuse {};            // all tokens become one
struct StripEach {
  std::string character;
  int64_t start, stop;  // at most so many at either end
};
struct FromByteLetters {};  // the byte-level alphabet back to bytes; broken UTF-8 becomes U+FFFD
struct FromMetaspace {
  std::string replacement;
  bool drop_first;
};

using DecoderStep = std::variant<ReplaceEach, JoinByteTokens, Fuse, StripEach, FromByteLetters, FromMetaspace>;

class Decoder {
 public:
  Decoder() = default;
  explicit Decoder(std::vector<DecoderStep> steps) : steps_(std::move(steps)), exists_(true) {}
  static Decoder parse(const Json& json, const std::string& where);

  // Without any decoder tokens are written with a space between them.
  std::string decode(std::vector<std::string> tokens) const;
  bool joins_bytes() const;

 private:
  std::vector<DecoderStep> steps_;
  bool exists_ = false;
};

// The byte that "<0xNN>" names, -1 for anything else.
int byte_of_piece(std::string_view piece);

}  // namespace pare::tok
