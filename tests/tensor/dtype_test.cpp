#include "pare/tensor/dtype.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

namespace pare {
namespace {

// Reads little-endian numbers that lie one byte off any alignment.
template <class T>
std::vector<float> read(DType type, std::initializer_list<T> values) {
  alignas(8) std::array<std::byte, 65> bytes{};
  size_t size = 1;
  for (const T& value : values) {
    std::memcpy(bytes.data() + size, &value, sizeof(T));
    size += sizeof(T);
  }
  std::vector<float> out(values.size());
  to_f32(type, std::span(bytes).subspan(1, size - 1), out);
  return out;
}

using Floats = std::vector<float>;

TEST(DType, TableIsIndexedByItsType) {
  for (size_t i = 0; i < all_dtypes().size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(all_dtypes()[i].type), i);
    EXPECT_EQ(&info(all_dtypes()[i].type), &all_dtypes()[i]);
  }
}

TEST(DType, NamesAreUniqueAndLeadBack) {
  std::set<std::string_view> names, spellings;
  for (const DTypeInfo& t : all_dtypes()) {
    EXPECT_TRUE(names.insert(t.name).second) << t.name;
    EXPECT_TRUE(spellings.insert(t.safetensors).second) << t.safetensors;
    EXPECT_EQ(dtype_from_name(t.name), t.type);
    EXPECT_EQ(dtype_from_safetensors(t.safetensors), t.type);
  }
  EXPECT_EQ(dtype_from_safetensors("F128"), std::nullopt);
  EXPECT_EQ(dtype_from_safetensors("f32"), std::nullopt);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
}

TEST(DType, ReadsFloatsFromAnyAddress) {
  EXPECT_EQ(read<float>(DType::f32, {1.5f, -0.0f, 3e-39f}), (Floats{1.5f, -0.0f, 3e-39f}));
  EXPECT_EQ(read<double>(DType::f64, {0.1, -2.0}), (Floats{0.1f, -2.0f}));
  // 1, -2, largest, smallest subnormal (IEEE 754 binary16)
  EXPECT_EQ(read<uint16_t>(DType::f16, {0x3C00, 0xC000, 0x7BFF, 0x0001}), (Floats{1, -2, 65504, 0x1p-24f}));
  EXPECT_EQ(read<uint16_t>(DType::bf16, {0x3F80, 0xC000, 0x0001}), (Floats{1, -2, 0x1p-133f}));
}

TEST(DType, ReadsEveryKindOfEightBitFloat) {
  // e4m3fn: 1, largest 448, smallest 2^-9; e5m2: 1, largest 57344; e8m0: 2^(b - 127); fnuz: bias one higher.
  EXPECT_EQ(read<uint8_t>(DType::f8_e4m3, {0x38, 0xFE, 0x01}), (Floats{1, -448, 0x1p-9f}));
  EXPECT_EQ(read<uint8_t>(DType::f8_e5m2, {0x3C, 0x7B, 0x81}), (Floats{1, 57344, -0x1p-16f}));
  EXPECT_EQ(read<uint8_t>(DType::f8_e8m0, {127, 128, 0}), (Floats{1, 2, 0x1p-127f}));
  EXPECT_EQ(read<uint8_t>(DType::f8_e4m3fnuz, {0x40, 0x7F, 0x01}), (Floats{1, 240, 0x1p-10f}));
  EXPECT_EQ(read<uint8_t>(DType::f8_e5m2fnuz, {0x40, 0x7F, 0x01}), (Floats{1, 57344, 0x1p-17f}));
  EXPECT_TRUE(std::isnan(read<uint8_t>(DType::f8_e4m3, {0x7F})[0]));
  EXPECT_TRUE(std::isnan(read<uint8_t>(DType::f8_e4m3fnuz, {0x80})[0]));
}

TEST(DType, IntegersBecomeFloats) {
  EXPECT_EQ(read<int8_t>(DType::i8, {-128, 127}), (Floats{-128, 127}));
  EXPECT_EQ(read<uint8_t>(DType::u8, {0, 255}), (Floats{0, 255}));
  EXPECT_EQ(read<uint8_t>(DType::boolean, {0, 1}), (Floats{0, 1}));
  EXPECT_EQ(read<int16_t>(DType::i16, {-32768}), (Floats{-32768}));
  EXPECT_EQ(read<uint16_t>(DType::u16, {65535}), (Floats{65535}));
  EXPECT_EQ(read<int32_t>(DType::i32, {-7}), (Floats{-7}));
  EXPECT_EQ(read<uint32_t>(DType::u32, {4294967295u}), (Floats{4294967296.0f}));
  EXPECT_EQ(read<int64_t>(DType::i64, {-(int64_t{1} << 40)}), (Floats{-0x1p40f}));
  EXPECT_EQ(read<uint64_t>(DType::u64, {uint64_t{1} << 63}), (Floats{0x1p63f}));
}

TEST(DType, NothingIsReadFromNothing) {
  to_f32(DType::f32, {}, {});
  to_f32(DType::f16, {}, {});
  from_f32(DType::f32, {}, {});
}

// Every finite value of the two narrow types survives reading and writing, and its neighbours' midpoints go to even.
TEST(DType, NarrowTypesRoundTripAndRoundToEven) {
  for (const DType type : {DType::f16, DType::bf16}) {
    const auto value = [&](int bits) { return read<uint16_t>(type, {static_cast<uint16_t>(bits)})[0]; };
    const auto bits_of = [&](float x) {
      uint16_t out = 0;
      from_f32(type, std::span(&x, 1), std::as_writable_bytes(std::span(&out, 1)));
      return out;
    };
    const int infinity = type == DType::f16 ? 0x7C00 : 0x7F80;
    for (int bits = 0; bits < infinity; ++bits) ASSERT_EQ(bits_of(value(bits)), bits);
    for (int bits = 0; bits < infinity - 1; bits += 37) {
      const double middle = (static_cast<double>(value(bits)) + value(bits + 1)) / 2;
      if (static_cast<double>(static_cast<float>(middle)) != middle) continue;  // subnormal: no f32 between
      ASSERT_EQ(bits_of(static_cast<float>(middle)), bits + bits % 2);
      ASSERT_EQ(bits_of(-static_cast<float>(middle)), 0x8000 + bits + bits % 2);
    }
    EXPECT_EQ(bits_of(std::numeric_limits<float>::infinity()), infinity);
    EXPECT_TRUE(std::isnan(value(bits_of(std::numeric_limits<float>::quiet_NaN()))));
  }
}

}  // namespace
}  // namespace pare
