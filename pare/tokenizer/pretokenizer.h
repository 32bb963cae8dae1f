// The pre-tokenizers of tokenizer.json: a flat list of steps, each cutting (or rewriting) every piece of the one
// before.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "pare/base/json.h"
#include "pare/tokenizer/normalizer.h"
#include "pare/tokenizer/pieces.h"
#include "pare/tokenizer/split_classic.h"

namespace pare::tok {

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct Split {
  Pattern pattern;
  Behavior behavior = Behavior::isolated;
  bool invert = false;  // the pattern describes what is kept between the separators
};
struct ClassicSplit {
  Classic pattern;
};
struct SpacePrefix {};  // a space in front of a piece that does not begin with white space (ByteLevel add_prefix_space)
struct ByteLetters {};  // every byte becomes a letter of the byte-level alphabet
struct Digits {
  bool individual;
};
struct Metaspace {
  std::string replacement;
  enum class Prepend { always, first, never } prepend;
  bool split;
};
struct Punctuation {
  Behavior behavior;
};
struct Whitespace {};       // \w+|[^\w\s]+
struct WhitespaceSplit {};  // anything but white space

using PretokenizerStep = std::variant<Split, ClassicSplit, SpacePrefix, ByteLetters, Digits, Metaspace, Punctuation,
                                      Whitespace, WhitespaceSplit>;

class Pretokenizer {
 public:
  Pretokenizer() = default;
  explicit Pretokenizer(std::vector<PretokenizerStep> steps);
  static Pretokenizer parse(const Json& json, const std::string& where);

  // Whether the model must spell its pieces in the byte-level alphabet: a last ByteLetters is left to it, so that
  // pieces it has seen before need no mapping.
  bool letters_last() const { return letters_last_; }
  const std::vector<PretokenizerStep>& steps() const { return steps_; }  // with the last ByteLetters
  // The pieces of `text`; `begins_input` when nothing stands before it (Metaspace "first").
  void split(std::string_view text, bool begins_input, Pieces& pieces) const;

 private:
  std::vector<PretokenizerStep> steps_;
  bool letters_last_ = false;
};

}  // namespace pare::tok
