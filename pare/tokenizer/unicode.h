// Characters, their classes, and the normalization forms. All text here is well-formed UTF-8; who reads foreign bytes
// checks them first (`is_utf8`) or repairs them (`repair_utf8`).
#pragma once

#include <utf8proc.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace pare::tok {

struct Char {
  uint32_t code;
  uint32_t bytes;
};

inline Char char_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {(lead & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  if (lead < 0xf0) return {(lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f), 4};
}
// The character that ends just before `end` (end > 0).
inline Char char_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  return char_at(text, begin);
}

// White_Space of Unicode.
constexpr bool is_space(uint32_t c) {
  return c == ' ' || (c >= 0x09 && c <= 0x0d) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

// What the split patterns ask about a character: \p{L}, \p{N}, \s or none of them.
enum class Class : uint8_t { letter, number, space, other };

inline Class class_beyond_ascii(uint32_t code) {
  if (is_space(code)) return Class::space;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return Class::letter;
  if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) return Class::number;
  return Class::other;
}

constexpr std::array<Class, 128> kAsciiClass = [] {
  std::array<Class, 128> table{};
  for (uint32_t c = 0; c < 128; ++c)
    table[c] = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ? Class::letter
               : c >= '0' && c <= '9'                           ? Class::number
               : is_space(c)                                    ? Class::space
                                                                : Class::other;
  return table;
}();

inline Class class_of(uint32_t code) { return code < 128 ? kAsciiClass[code] : class_beyond_ascii(code); }

bool is_punctuation(uint32_t code);  // ASCII punctuation or \p{P}
bool is_word(uint32_t code);         // \w: letters, marks, decimal digits, connectors

enum class Form : uint8_t { nfc, nfd, nfkc, nfkd };
std::string normalize(std::string_view text, Form form);
std::string lowercase(std::string_view text);

// Each maximal broken sequence becomes one U+FFFD (the Unicode standard's recommended practice).
std::string repair_utf8(std::string_view bytes);
inline constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// The alphabet of byte-level vocabularies: every byte as one printable character.
//   0x21–0x7E, 0xA1–0xAC, 0xAE–0xFF  →  the code point of the same value
//   the other 68 bytes, ascending    →  U+0100, U+0101, … (so 0x20 → U+0120 Ġ, 0x0A → U+010A Ċ)
inline constexpr uint32_t kByteLetters = 0x144;  // one past the last code point of the alphabet
uint32_t byte_to_letter(uint8_t byte);
int letter_to_byte(uint32_t code);  // -1 outside the alphabet
std::string to_byte_letters(std::string_view bytes);

}  // namespace pare::tok
