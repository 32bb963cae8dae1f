#include "pare/tokenizer/unicode.h"

#include <cstdlib>
#include <memory>
#include <new>

#include "pare/base/error.h"
#include "pare/base/utf8.h"

namespace pare::tok {
namespace {

struct Alphabet {
  std::array<uint32_t, 256> letter;
  std::array<int16_t, kByteLetters> byte;
};

constexpr Alphabet kAlphabet = [] {
  Alphabet a{};
  for (int16_t& b : a.byte) b = -1;
  uint32_t next = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
    a.letter[b] = itself ? b : next++;
    a.byte[a.letter[b]] = static_cast<int16_t>(b);
  }
  return a;
}();

// Characters that no canonical form changes and that join nothing before them: most text needs no work at all.
bool surely_composed(uint32_t c) {
  return c < 0x300 || (c >= 0x400 && c <= 0x482) || (c >= 0x48a && c <= 0x52f) || (c >= 0x2010 && c <= 0x2027) ||
         (c >= 0x3001 && c <= 0x3029) || (c >= 0x3041 && c <= 0x3096) || (c >= 0x30a1 && c <= 0x30fa) ||
         (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3);
}

bool is_ascii(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  return true;
}

bool needs_no_composing(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Char c = char_at(text, i);
    if (!surely_composed(c.code)) return false;
    i += c.bytes;
  }
  return true;
}

std::string map_with(std::string_view text, int options) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  if (length < 0) throw Error({.what = "the text cannot be normalized", .got = utf8proc_errmsg(length)});
  return std::string(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

}  // namespace

uint32_t byte_to_letter(uint8_t byte) { return kAlphabet.letter[byte]; }
int letter_to_byte(uint32_t code) { return code < kByteLetters ? kAlphabet.byte[code] : -1; }

std::string to_byte_letters(std::string_view bytes) {
  std::string letters;
  letters.reserve(bytes.size() * 2);
  for (const char b : bytes) append_utf8(letters, byte_to_letter(static_cast<uint8_t>(b)));
  return letters;
}

bool is_punctuation(uint32_t code) {
  if (code < 128) return code > 32 && code < 127 && kAsciiClass[code] == Class::other;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_word(uint32_t code) {
  if (code < 128) return kAsciiClass[code] == Class::letter || kAsciiClass[code] == Class::number || code == '_';
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_ND) || category == UTF8PROC_CATEGORY_PC;
}

std::string normalize(std::string_view text, Form form) {
  if (is_ascii(text) || (form == Form::nfc && needs_no_composing(text))) return std::string(text);
  switch (form) {
    case Form::nfc:
      return map_with(text, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    case Form::nfd:
      return map_with(text, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    case Form::nfkc:
      return map_with(text, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case Form::nfkd:
      break;
  }
  return map_with(text, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

std::string lowercase(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Char c = char_at(text, i);
    if (c.code == 0x130)
      lower += "i\xcc\x87";  // İ: the one letter whose lower case is two characters
    else
      append_utf8(lower, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.code))));
    i += c.bytes;
  }
  return lower;
}

namespace {

// Length of the longest prefix that could begin a character: what one U+FFFD stands for.
size_t broken_length(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const int announced = utf8_length(at(0));
  size_t n = 1;
  while (n < static_cast<size_t>(announced) && n < bytes.size()) {
    unsigned low = 0x80, high = 0xbf;
    if (n == 1) {
      if (at(0) == 0xe0) low = 0xa0;
      if (at(0) == 0xed) high = 0x9f;
      if (at(0) == 0xf0) low = 0x90;
      if (at(0) == 0xf4) high = 0x8f;
    }
    if (at(n) < low || at(n) > high) break;
    ++n;
  }
  return n;
}

}  // namespace

std::string repair_utf8(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const size_t good = first_invalid_utf8(bytes);
    text += bytes.substr(0, good);
    bytes.remove_prefix(good);
    if (bytes.empty()) break;
    text += kReplacement;
    bytes.remove_prefix(broken_length(bytes));
  }
  return text;
}

}  // namespace pare::tok
