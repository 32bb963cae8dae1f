#include "pare/base/utf8.h"

namespace pare {

int utf8_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

size_t first_invalid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    const int length = utf8_length(byte(i));
    if (length == 0 || i + static_cast<size_t>(length) > text.size()) return i;
    for (int k = 1; k < length; ++k)
      if ((byte(i + static_cast<size_t>(k)) & 0xC0) != 0x80) return i;
    const bool overlong = (byte(i) == 0xE0 && byte(i + 1) < 0xA0) || (byte(i) == 0xF0 && byte(i + 1) < 0x90);
    const bool surrogate = byte(i) == 0xED && byte(i + 1) > 0x9F;
    const bool too_large = byte(i) == 0xF4 && byte(i + 1) > 0x8F;
    if (overlong || surrogate || too_large) return i;
    i += static_cast<size_t>(length);
  }
  return text.size();
}

void append_utf8(std::string& out, uint32_t c) {
  const auto push = [&](uint32_t b) { out += static_cast<char>(b); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0 | c >> 6), push(0x80 | (c & 63));
  } else if (c < 0x10000) {
    push(0xE0 | c >> 12), push(0x80 | (c >> 6 & 63)), push(0x80 | (c & 63));
  } else {
    push(0xF0 | c >> 18), push(0x80 | (c >> 12 & 63)), push(0x80 | (c >> 6 & 63)), push(0x80 | (c & 63));
  }
}

}  // namespace pare
