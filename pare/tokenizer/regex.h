// Regular expressions from tokenizer files, run by PCRE2 (UTF, Unicode properties, JIT). They are written for
// Oniguruma: what means something else in PCRE2 is translated or refused. Pattern length, matching steps, depth and
// memory are bounded, for the files are foreign.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace pare::tok {

class Regex {
 public:
  explicit Regex(std::string_view pattern);  // throws Error
  const std::string& pattern() const { return pattern_; }

  // Calls found(begin, end) for every non-empty match, from left to right, none overlapping. Throws Error when the
  // pattern backtracks beyond the limits.
  void for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const;

 private:
  struct Code;
  std::string pattern_;
  std::shared_ptr<const Code> code_;
};

// The pattern of a literal string.
std::string escape_regex(std::string_view literal);

}  // namespace pare::tok
