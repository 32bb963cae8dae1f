// The plain element types of safetensors and GGUF, in one table. Packed GGUF blocks are in container/gguf_blocks.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace pare {

enum class DType : uint8_t {
  f32,
  f16,
  bf16,
  f64,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i8,
  u8,
  i16,
  u16,
  i32,
  u32,
  i64,
  u64,
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  c64,
};

struct DTypeInfo {
  DType type;
  std::string_view name;         // as Pare prints it: "bf16"
  std::string_view safetensors;  // as the file spells it: "BF16"
  int bits;
  bool floating;  // to_f32 reads it as a real number
};
std::span<const DTypeInfo> all_dtypes();
const DTypeInfo& info(DType type);
std::optional<DType> dtype_from_safetensors(std::string_view name);
std::optional<DType> dtype_from_name(std::string_view name);

// Converts out.size() elements. `bytes` need not be aligned. Supports every type of whole bytes but c64 (integers
// become floats); asserts that bytes.size() fits.
void to_f32(DType type, std::span<const std::byte> bytes, std::span<float> out);
// Rounds to nearest even; f32, f16, bf16 only.
void from_f32(DType type, std::span<const float> values, std::span<std::byte> out);

}  // namespace pare
