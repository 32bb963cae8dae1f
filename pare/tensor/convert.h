// Bulk conversion of the 16-bit formats, compiled once per instruction set; bit for bit base/float_formats.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pare {

// `halves` may begin anywhere.
void f16_to_f32(const std::byte* halves, float* out, int64_t count);
void bf16_to_f32(const std::byte* halves, float* out, int64_t count);
void f32_to_f16(const float* values, std::byte* halves, int64_t count);
void f32_to_bf16(const float* values, std::byte* halves, int64_t count);

}  // namespace pare
