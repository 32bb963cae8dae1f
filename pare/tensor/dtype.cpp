#include "pare/tensor/dtype.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "pare/base/float_formats.h"
#include "pare/tensor/convert.h"

namespace pare {
namespace {

constexpr DTypeInfo kTypes[] = {
    {DType::f32, "f32", "F32", 32, true},
    {DType::f16, "f16", "F16", 16, true},
    {DType::bf16, "bf16", "BF16", 16, true},
    {DType::f64, "f64", "F64", 64, true},
    {DType::f8_e4m3, "f8_e4m3", "F8_E4M3", 8, true},
    {DType::f8_e5m2, "f8_e5m2", "F8_E5M2", 8, true},
    {DType::f8_e8m0, "f8_e8m0", "F8_E8M0", 8, true},
    {DType::f8_e4m3fnuz, "f8_e4m3fnuz", "F8_E4M3FNUZ", 8, true},
    {DType::f8_e5m2fnuz, "f8_e5m2fnuz", "F8_E5M2FNUZ", 8, true},
    {DType::i8, "i8", "I8", 8, false},
    {DType::u8, "u8", "U8", 8, false},
    {DType::i16, "i16", "I16", 16, false},
    {DType::u16, "u16", "U16", 16, false},
    {DType::i32, "i32", "I32", 32, false},
    {DType::u32, "u32", "U32", 32, false},
    {DType::i64, "i64", "I64", 64, false},
    {DType::u64, "u64", "U64", 64, false},
    {DType::boolean, "bool", "BOOL", 8, false},
    {DType::f4, "f4", "F4", 4, false},
    {DType::f6_e2m3, "f6_e2m3", "F6_E2M3", 6, false},
    {DType::f6_e3m2, "f6_e3m2", "F6_E3M2", 6, false},
    {DType::c64, "c64", "C64", 64, false},
};

template <class T, class Convert>
void convert(std::span<const std::byte> bytes, std::span<float> out, Convert to_float) {
  assert(bytes.size() >= out.size() * sizeof(T));
  const std::byte* from = bytes.data();
  for (float& x : out) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    from += sizeof(T);
    x = to_float(value);
  }
}
template <class T>
void convert(std::span<const std::byte> bytes, std::span<float> out) {
  convert<T>(bytes, out, [](T v) { return static_cast<float>(v); });
}

template <class Convert>
void convert_table(std::span<const std::byte> bytes, std::span<float> out, Convert to_float) {
  std::array<float, 256> table;
  for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = to_float(static_cast<uint8_t>(i));
  convert<uint8_t>(bytes, out, [&](uint8_t v) { return table[v]; });
}

}  // namespace

std::span<const DTypeInfo> all_dtypes() { return kTypes; }

const DTypeInfo& info(DType type) { return kTypes[static_cast<size_t>(type)]; }

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const DTypeInfo& t : kTypes)
    if (t.safetensors == name) return t.type;
  return std::nullopt;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeInfo& t : kTypes)
    if (t.name == name) return t.type;
  return std::nullopt;
}

void to_f32(DType type, std::span<const std::byte> bytes, std::span<float> out) {
  switch (type) {
    case DType::f32:
      assert(bytes.size() >= out.size_bytes());
      if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size_bytes());
      return;
    case DType::f16:
      assert(bytes.size() >= out.size() * 2);
      return f16_to_f32(bytes.data(), out.data(), std::ssize(out));
    case DType::bf16:
      assert(bytes.size() >= out.size() * 2);
      return bf16_to_f32(bytes.data(), out.data(), std::ssize(out));
    case DType::f64:
      return convert<double>(bytes, out);
    case DType::f8_e4m3:
      return convert_table(bytes, out, f8_e4m3_to_f32);
    case DType::f8_e5m2:
      return convert_table(bytes, out, f8_e5m2_to_f32);
    case DType::f8_e8m0:
      return convert_table(bytes, out, f8_e8m0_to_f32);
    case DType::f8_e4m3fnuz:
      return convert_table(bytes, out, f8_e4m3fnuz_to_f32);
    case DType::f8_e5m2fnuz:
      return convert_table(bytes, out, f8_e5m2fnuz_to_f32);
    case DType::i8:
      return convert<int8_t>(bytes, out);
    case DType::u8:
    case DType::boolean:
      return convert<uint8_t>(bytes, out);
    case DType::i16:
      return convert<int16_t>(bytes, out);
    case DType::u16:
      return convert<uint16_t>(bytes, out);
    case DType::i32:
      return convert<int32_t>(bytes, out);
    case DType::u32:
      return convert<uint32_t>(bytes, out);
    case DType::i64:
      return convert<int64_t>(bytes, out);
    case DType::u64:
      return convert<uint64_t>(bytes, out);
    case DType::f4:
    case DType::f6_e2m3:
    case DType::f6_e3m2:
    case DType::c64:
      break;
  }
  assert(false && "to_f32: not a type of whole real numbers");
}

void from_f32(DType type, std::span<const float> values, std::span<std::byte> out) {
  std::byte* to = out.data();
  assert(out.size() >= values.size() * static_cast<size_t>(info(type).bits) / 8);
  if (type == DType::f32) {
    if (!values.empty()) std::memcpy(to, values.data(), values.size_bytes());
    return;
  }
  assert(type == DType::f16 || type == DType::bf16);
  if (type == DType::f16) return f32_to_f16(values.data(), to, std::ssize(values));
  f32_to_bf16(values.data(), to, std::ssize(values));
}

}  // namespace pare
