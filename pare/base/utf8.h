#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pare {

// Offset of the first byte that is not part of well-formed UTF-8, or text.size().
size_t first_invalid_utf8(std::string_view text);
inline bool is_utf8(std::string_view text) { return first_invalid_utf8(text) == text.size(); }

// Length in bytes of the sequence that this lead byte announces (1–4); 0 when it cannot start one.
int utf8_length(unsigned char lead);
void append_utf8(std::string& out, uint32_t code_point);

}  // namespace pare
