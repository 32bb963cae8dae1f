#include "pare/base/float_formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace pare {
namespace {

// The value of a finite f16, from its definition: | sign | exponent 5, bias 15 | fraction 10 |.
double f16_by_definition(int bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -size : size;
}

TEST(Float16, EveryValueIsWhatItsBitsSay) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const float value = f16_to_f32(static_cast<uint16_t>(bits));
    if ((bits >> 10 & 31) == 31) {
      EXPECT_EQ(std::isnan(value), (bits & 1023) != 0) << bits;
      EXPECT_EQ(std::isinf(value), (bits & 1023) == 0) << bits;
    } else {
      EXPECT_EQ(value, f16_by_definition(bits)) << bits;
    }
    EXPECT_EQ(std::signbit(value), bits >= 0x8000) << bits;
  }
}

TEST(Float16, EveryValueSurvivesTheRoundTrip) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = f16_to_f32(half);
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value)))) << bits;
    else
      EXPECT_EQ(f32_to_f16(value), half) << bits;
  }
}

// Rounding is right everywhere when it is right at every boundary: halfway between two neighbours it goes to the even
// one, and one f32 to either side of that to the nearer.
TEST(Float16, EveryBoundaryRoundsToNearestTiesToEven) {
  for (int lower = 0; lower < 0x7BFF; ++lower) {
    const int upper = lower + 1, even = lower % 2 == 0 ? lower : upper;
    const auto middle = static_cast<float>((f16_by_definition(lower) + f16_by_definition(upper)) / 2);
    for (const int sign : {0, 0x8000}) {
      const float s = sign ? -1.0f : 1.0f;
      EXPECT_EQ(f32_to_f16(s * middle), sign | even);
      EXPECT_EQ(f32_to_f16(s * std::nextafter(middle, 0.0f)), sign | lower);
      EXPECT_EQ(f32_to_f16(s * std::nextafter(middle, 1e9f)), sign | upper);
    }
  }
}

TEST(Float16, TheEndsOfTheRange) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(-1e30f), 0xFC00);
  EXPECT_EQ(f32_to_f16(infinity), 0x7C00);
  EXPECT_EQ(f32_to_f16(-infinity), 0xFC00);
  EXPECT_EQ(f32_to_f16(1e-30f), 0);
  EXPECT_EQ(f32_to_f16(-1e-30f), 0x8000);
  // A NaN whose payload lives only in the bits that are cut off must not become an infinity.
  EXPECT_TRUE(std::isnan(round_to_f16(std::bit_cast<float>(0x7F800001u))));
  EXPECT_EQ(round_to_f16(1.0f + 0x1p-11f), 1.0f);
}

TEST(BFloat16, EveryValueAndEveryBoundary) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = bf16_to_f32(half);
    ASSERT_EQ(std::bit_cast<uint32_t>(value), uint32_t{half} << 16);
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value)))) << bits;
    else
      EXPECT_EQ(f32_to_bf16(value), half) << bits;
    if ((bits & 0x7FFF) >= 0x7F80) continue;
    // The f32 halfway to the next larger bf16 has only bit 15 below; beyond the last one lies infinity.
    const uint32_t middle = uint32_t{half} << 16 | 0x8000u;
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(middle)), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(middle - 1)), bits);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(middle + 1)), bits + 1);
  }
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7F800001u)))));
}

struct Landmark {
  int code;
  float value;
};

// Positive codes increase strictly up to `last`, and the negative half mirrors them.
template <class ToFloat>
void expect_ordered(ToFloat&& value, int last) {
  for (int code = 1; code <= last; ++code) {
    EXPECT_GT(value(static_cast<uint8_t>(code)), value(static_cast<uint8_t>(code - 1))) << code;
    EXPECT_EQ(value(static_cast<uint8_t>(code | 0x80)), -value(static_cast<uint8_t>(code))) << code;
  }
}

TEST(Float8, E4M3) {
  for (const auto& [code, value] :
       {Landmark{0x00, 0}, {0x01, 0x1p-9f}, {0x07, 7 * 0x1p-9f}, {0x08, 0x1p-6f}, {0x38, 1}, {0x3C, 1.5f}, {0x7E, 448}})
    EXPECT_EQ(f8_e4m3_to_f32(static_cast<uint8_t>(code)), value) << code;
  expect_ordered(f8_e4m3_to_f32, 0x7E);
  EXPECT_TRUE(std::isnan(f8_e4m3_to_f32(0x7F)) && std::isnan(f8_e4m3_to_f32(0xFF)));
}

TEST(Float8, E5M2) {
  for (const auto& [code, value] :
       {Landmark{0x00, 0}, {0x01, 0x1p-16f}, {0x04, 0x1p-14f}, {0x3C, 1}, {0x3D, 1.25f}, {0x7B, 57344}})
    EXPECT_EQ(f8_e5m2_to_f32(static_cast<uint8_t>(code)), value) << code;
  expect_ordered(f8_e5m2_to_f32, 0x7C);
  EXPECT_TRUE(std::isinf(f8_e5m2_to_f32(0x7C)) && std::isnan(f8_e5m2_to_f32(0x7D)));
}

TEST(Float8, FnuzKindsHaveOneNanAndNoNegativeZero) {
  for (const auto& [code, value] : {Landmark{0x00, 0}, {0x01, 0x1p-10f}, {0x08, 0x1p-7f}, {0x40, 1}, {0x7F, 240}})
    EXPECT_EQ(f8_e4m3fnuz_to_f32(static_cast<uint8_t>(code)), value) << code;
  for (const auto& [code, value] : {Landmark{0x00, 0}, {0x01, 0x1p-17f}, {0x04, 0x1p-15f}, {0x40, 1}, {0x7F, 57344}})
    EXPECT_EQ(f8_e5m2fnuz_to_f32(static_cast<uint8_t>(code)), value) << code;
  expect_ordered(f8_e4m3fnuz_to_f32, 0x7F);
  expect_ordered(f8_e5m2fnuz_to_f32, 0x7F);
  EXPECT_TRUE(std::isnan(f8_e4m3fnuz_to_f32(0x80)) && std::isnan(f8_e5m2fnuz_to_f32(0x80)));
}

TEST(Float8, E8M0IsAPowerOfTwo) {
  for (int code = 0; code < 255; ++code)
    EXPECT_EQ(f8_e8m0_to_f32(static_cast<uint8_t>(code)), std::ldexp(1.0, code - 127)) << code;
  EXPECT_TRUE(std::isnan(f8_e8m0_to_f32(255)));
}

}  // namespace
}  // namespace pare
