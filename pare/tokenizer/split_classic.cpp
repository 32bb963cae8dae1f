#include "pare/tokenizer/split_classic.h"

#include "pare/tokenizer/unicode.h"

namespace pare::tok {
namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr struct {
  std::string_view regex;
  Classic pattern;
} kSpellings[] = {
    {kGpt2, Classic::gpt2},
    {kLlama3, Classic::llama3},
    {kQwen2, Classic::qwen2},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Classic::gpt2},
    {R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Classic::llama3},
};

// The text as a run of classes; `class_at(end)` is never asked.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  bool at_end(size_t i) const { return i == text_.size(); }
  char byte(size_t i) const { return text_[i]; }
  bool is(size_t i, char c) const { return i < text_.size() && text_[i] == c; }
  bool newline(size_t i) const { return is(i, '\n') || is(i, '\r'); }
  Class class_at(size_t i, size_t& after) const {
    const auto lead = static_cast<unsigned char>(text_[i]);
    if (lead < 0x80) {
      after = i + 1;
      return kAsciiClass[lead];
    }
    const Char c = char_at(text_, i);
    after = i + c.bytes;
    return class_beyond_ascii(c.code);
  }
  // End of the run of characters of one class that begins at i (perhaps empty).
  size_t run(size_t i, Class wanted) const {
    size_t after;
    while (i < text_.size() && class_at(i, after) == wanted) i = after;
    return i;
  }
  size_t run(size_t i, Class wanted, int limit) const {
    size_t after;
    while (limit-- > 0 && i < text_.size() && class_at(i, after) == wanted) i = after;
    return i;
  }
  bool starts(size_t i, Class wanted) const {
    size_t after;
    return i < text_.size() && class_at(i, after) == wanted;
  }
  std::string_view text() const { return text_; }

 private:
  std::string_view text_;
};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// Length of 's 't 're 've 'm 'll 'd at an apostrophe; 0 when none. Ignoring case, U+017F (ſ) is an s too.
size_t contraction(const Cursor& at, size_t i, bool any_case) {
  const auto letter = [&](size_t k) {
    if (at.at_end(i + 1) || (k == 2 && at.at_end(i + 2))) return '\0';
    return any_case ? lower(at.byte(i + k)) : at.byte(i + k);
  };
  const char first = letter(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (any_case && first == '\xc5' && letter(2) == '\xbf') return 3;
  const char second = first ? letter(2) : '\0';
  const bool two =
      (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return two ? 3 : 0;
}

// \s+(?!\S)|\s+ : the last of several spaces is left to the word that follows.
size_t white_end(const Cursor& at, size_t i) {
  const size_t end = at.run(i, Class::space);
  if (at.at_end(end)) return end;
  const size_t last = end - char_before(at.text(), end).bytes;
  return last > i ? last : end;
}

size_t gpt2_end(const Cursor& at, size_t i) {
  if (at.is(i, '\''))
    if (const size_t length = contraction(at, i, false)) return i + length;
  size_t after;
  Class kind = at.class_at(i, after);
  if (at.is(i, ' ') && !at.at_end(after)) {
    size_t second;
    const Class next = at.class_at(after, second);
    if (next != Class::space) return at.run(second, next);
  }
  return kind == Class::space ? white_end(at, i) : at.run(after, kind);
}

size_t llama3_end(const Cursor& at, size_t i, int digits) {
  if (at.is(i, '\''))
    if (const size_t length = contraction(at, i, true)) return i + length;
  size_t after;
  const Class kind = at.class_at(i, after);
  if (kind == Class::letter) return at.run(after, Class::letter);
  if (kind == Class::number) return at.run(after, Class::number, digits - 1);
  if (!at.newline(i) && at.starts(after, Class::letter)) return at.run(after, Class::letter);
  if (kind == Class::other || (at.is(i, ' ') && at.starts(after, Class::other))) {
    size_t end = at.run(after, Class::other);
    while (at.newline(end)) ++end;
    return end;
  }
  const size_t end = at.run(i, Class::space);  // \s*[\r\n]+ reaches to the last line break of the run
  for (size_t k = end; k > i; --k)
    if (at.newline(k - 1)) return k;
  return white_end(at, i);
}

}  // namespace

std::string_view classic_regex(Classic pattern) {
  return pattern == Classic::gpt2 ? kGpt2 : pattern == Classic::llama3 ? kLlama3 : kQwen2;
}

std::optional<Classic> classic_from_regex(std::string_view regex) {
  for (const auto& spelling : kSpellings)
    if (spelling.regex == regex) return spelling.pattern;
  return std::nullopt;
}

void split_classic(Classic pattern, std::string_view text, std::vector<std::string_view>& pieces) {
  const Cursor at(text);
  const int digits = pattern == Classic::llama3 ? 3 : 1;
  for (size_t i = 0; i < text.size();) {
    const size_t end = pattern == Classic::gpt2 ? gpt2_end(at, i) : llama3_end(at, i, digits);
    pieces.push_back(text.substr(i, end - i));
    i = end;
  }
}

}  // namespace pare::tok
