// Scalar conversions between float and the narrow formats in which checkpoints store numbers. Bulk conversion is in
// tensor/dtype.h. All round to nearest, ties to even, and keep infinities and NaNs.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace pare {

inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3FFu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float small = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(small));
}

inline uint16_t f32_to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds past 65504
  if (magnitude < 0x38800000u) {  // subnormal result: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline float round_to_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

inline float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }

inline uint16_t f32_to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 64);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// OCP 8-bit floats. E4M3 (the "FN" kind) has no infinity: 0x7F and 0xFF are NaN.
inline float f8_e4m3_to_f32(uint8_t v) {
  const int exponent = (v >> 3) & 15, mantissa = v & 7;
  const float sign = v & 0x80 ? -1.0f : 1.0f;
  if ((v & 0x7F) == 0x7F) return std::bit_cast<float>(0x7FC00000u);
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-9f;
  return sign * std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f, exponent - 7);
}
inline float f8_e5m2_to_f32(uint8_t v) { return f16_to_f32(static_cast<uint16_t>(v << 8)); }
// The "FNUZ" kinds have one NaN (0x80), no negative zero, and an exponent bias one higher.
inline float f8_e4m3fnuz_to_f32(uint8_t v) {
  if (v == 0x80) return std::bit_cast<float>(0x7FC00000u);
  const int exponent = (v >> 3) & 15, mantissa = v & 7;
  const float sign = v & 0x80 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-10f;
  return sign * std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f, exponent - 8);
}
inline float f8_e5m2fnuz_to_f32(uint8_t v) {
  if (v == 0x80) return std::bit_cast<float>(0x7FC00000u);
  const int exponent = (v >> 2) & 31, mantissa = v & 3;
  const float sign = v & 0x80 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-17f;
  return sign * std::ldexp(1.0f + static_cast<float>(mantissa) / 4.0f, exponent - 16);
}
// A power of two: 2^(v-127); 255 is NaN.
inline float f8_e8m0_to_f32(uint8_t v) {
  return v == 255 ? std::bit_cast<float>(0x7FC00000u) : std::ldexp(1.0f, int{v} - 127);
}

}  // namespace pare
