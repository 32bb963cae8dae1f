// Bulk conversion equals base/float_formats.h bit for bit, on every instruction set of this processor.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cstring>
#include <random>
#include <vector>

#include "pare/base/float_formats.h"
#include "pare/tensor/dtype.h"

namespace pare {
namespace {

template <class Body>
void for_instruction_sets(Body body) {
  for (const int64_t target : {HWY_SCALAR, HWY_SSE4, HWY_AVX2, HWY_AVX3}) {
    hwy::SetSupportedTargetsForTest(0);
    if (!(hwy::SupportedTargets() & target)) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(Convert, WidensEveryHalf) {
  std::vector<std::byte> bytes(1 + 2 * 65536);  // odd addresses
  for (int i = 0; i < 65536; ++i) {
    const auto half = static_cast<uint16_t>(i);
    std::memcpy(bytes.data() + 1 + 2 * i, &half, 2);
  }
  std::vector<float> out(65536);
  for_instruction_sets([&] {
    for (const DType type : {DType::f16, DType::bf16}) {
      to_f32(type, std::span(bytes).subspan(1), out);
      for (int i = 0; i < 65536; ++i) {
        const auto half = static_cast<uint16_t>(i);
        const float expected = type == DType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
        ASSERT_EQ(std::bit_cast<uint32_t>(out[static_cast<size_t>(i)]), std::bit_cast<uint32_t>(expected)) << i;
      }
    }
  });
}

// Every sign, exponent and leading bits of the mantissa, with what decides a rounding below them; then anything.
std::vector<float> many_floats() {
  std::vector<float> all;
  for (uint32_t high = 0; high < 65536; ++high)
    for (const uint32_t low :
         {0x0000u, 0x0001u, 0x0FFFu, 0x1000u, 0x1001u, 0x3000u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu})
      all.push_back(std::bit_cast<float>(high << 16 | low));
  std::mt19937 random(1);
  for (int i = 0; i < 100003; ++i) all.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  return all;
}

TEST(Convert, NarrowsLikeOneByOne) {
  const std::vector<float> values = many_floats();
  std::vector<std::byte> bytes(1 + 2 * values.size());
  for_instruction_sets([&] {
    for (const DType type : {DType::f16, DType::bf16}) {
      from_f32(type, values, std::span(bytes).subspan(1));
      for (size_t i = 0; i < values.size(); ++i) {
        uint16_t half;
        std::memcpy(&half, bytes.data() + 1 + 2 * i, 2);
        const uint16_t expected = type == DType::f16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
        ASSERT_EQ(half, expected) << std::hex << std::bit_cast<uint32_t>(values[i]);
      }
    }
  });
}

TEST(Convert, StopsAtTheEnd) {
  for (size_t count = 0; count < 40; ++count) {
    const std::vector<std::byte> halves(2 * count);
    std::vector<float> out(count + 1, 7);
    to_f32(DType::f16, halves, std::span(out).first(count));
    EXPECT_EQ(out[count], 7);
    std::vector<std::byte> back(2 * count + 1, std::byte{9});
    from_f32(DType::bf16, std::span(out).first(count), back);
    EXPECT_EQ(back[2 * count], std::byte{9});
  }
}

}  // namespace
}  // namespace pare
