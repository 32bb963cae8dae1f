// The normalizers of tokenizer.json: a flat list of steps.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pare/base/json.h"
#include "pare/tokenizer/regex.h"
#include "pare/tokenizer/unicode.h"

namespace pare::tok {

// What a Replace or Split looks for: a plain string, or a regular expression.
struct Pattern {
  std::string literal;
  std::optional<Regex> regex;
  void for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const;
};
Pattern parse_pattern(const Json& json, const std::string& where);  // {"String": …} or {"Regex": …}

struct Prepend {
  std::string text;  // not in front of nothing
};
struct Replace {
  Pattern pattern;
  std::string content;
  std::string apply(std::string_view text) const;
};
struct Lowercase {};
struct StripAccents {};
struct StripSpace {
  bool left, right;
};

using NormalizerStep = std::variant<Prepend, Replace, Form, Lowercase, StripAccents, StripSpace>;

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}
  static Normalizer parse(const Json& json, const std::string& where);  // null: no steps

  bool empty() const { return steps_.empty(); }
  const std::vector<NormalizerStep>& steps() const { return steps_; }
  std::string apply(std::string_view text) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace pare::tok
