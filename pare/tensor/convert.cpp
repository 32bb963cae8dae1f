#include "pare/tensor/convert.h"

#include <cstring>

#include "pare/base/float_formats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/tensor/convert.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace pare {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DI = hn::Rebind<int32_t, DF>;
using DU = hn::Rebind<uint32_t, DF>;
using DH = hn::Rebind<uint16_t, DF>;
using VI = hn::Vec<DI>;
constexpr int64_t kN = static_cast<int64_t>(hn::MaxLanes(DF()));

HWY_INLINE VI integers(int32_t x) { return hn::Set(DI(), x); }

// The steps of base/float_formats.h on 32-bit lanes. Not the processor's own instructions: they make signalling NaNs
// quiet, and not every processor has them.
struct FromF16 {
  static HWY_INLINE VI convert(VI half) {
    const VI sign = hn::ShiftLeft<16>(hn::And(half, integers(0x8000)));
    const VI magnitude = hn::And(half, integers(0x7FFF)), moved = hn::ShiftLeft<13>(magnitude);
    const VI normal = hn::Add(moved, integers(112 << 23)), special = hn::Add(moved, integers(224 << 23));
    const VI subnormal = hn::BitCast(DI(), hn::Mul(hn::ConvertTo(DF(), magnitude), hn::Set(DF(), 0x1p-24f)));
    const VI finite = hn::IfThenElse(hn::Lt(magnitude, integers(0x0400)), subnormal, normal);
    return hn::Or(sign, hn::IfThenElse(hn::Gt(magnitude, integers(0x7BFF)), special, finite));
  }
  static float one(uint16_t half) { return f16_to_f32(half); }
};
struct FromBF16 {
  static HWY_INLINE VI convert(VI half) { return hn::ShiftLeft<16>(half); }
  static float one(uint16_t half) { return bf16_to_f32(half); }
};

struct ToF16 {
  static HWY_INLINE VI convert(VI bits) {
    const VI sign = hn::And(hn::ShiftRight<16>(bits), integers(0x8000));
    const VI magnitude = hn::And(bits, integers(0x7FFFFFFF)), moved = hn::ShiftRight<13>(magnitude);
    const VI odd = hn::And(moved, integers(1));
    const VI rounded = hn::Sub(hn::Add(magnitude, hn::Add(odd, integers(0xFFF))), integers(0x38000000));
    // Adding 0.5 leaves the rounded multiple of 2^-24 in the low bits.
    const VI shifted = hn::BitCast(DI(), hn::Add(hn::BitCast(DF(), magnitude), hn::Set(DF(), 0.5f)));
    const VI subnormal = hn::Sub(shifted, integers(0x3F000000));
    const VI nan = hn::Or(integers(0x7E00), hn::And(moved, integers(0x3FF)));
    VI half = hn::IfThenElse(hn::Lt(magnitude, integers(0x38800000)), subnormal, hn::ShiftRight<13>(rounded));
    half = hn::IfThenElse(hn::Gt(magnitude, integers(0x477FEFFF)), integers(0x7C00), half);
    half = hn::IfThenElse(hn::Gt(magnitude, integers(0x7F800000)), nan, half);
    return hn::Or(sign, half);
  }
  static uint16_t one(float x) { return f32_to_f16(x); }
};
struct ToBF16 {
  static HWY_INLINE VI convert(VI bits) {
    const auto up = [](VI v) HWY_ATTR {  // logical shift: the sign stays one bit
      return hn::BitCast(DI(), hn::ShiftRight<16>(hn::BitCast(DU(), v)));
    };
    const VI odd = hn::And(up(bits), integers(1));
    const VI rounded = up(hn::Add(bits, hn::Add(odd, integers(0x7FFF))));
    const VI nan = hn::Or(up(bits), integers(64));
    const VI magnitude = hn::And(bits, integers(0x7FFFFFFF));
    return hn::IfThenElse(hn::Gt(magnitude, integers(0x7F800000)), nan, rounded);
  }
  static uint16_t one(float x) { return f32_to_bf16(x); }
};

template <class Format>
void widen(const std::byte* halves, float* out, int64_t count) {
  const DF df;
  int64_t i = 0;
  alignas(64) uint16_t copy[kN];
  for (; i + kN <= count; i += kN) {
    std::memcpy(copy, halves + 2 * i, sizeof copy);  // from any address; compilers make one load of it
    hn::StoreU(hn::BitCast(df, Format::convert(hn::PromoteTo(DI(), hn::Load(DH(), copy)))), df, out + i);
  }
  for (; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, halves + 2 * i, 2);
    out[i] = Format::one(half);
  }
}

template <class Format>
void narrow(const float* values, std::byte* halves, int64_t count) {
  int64_t i = 0;
  alignas(64) uint16_t copy[kN];
  for (; i + kN <= count; i += kN) {
    const VI bits = hn::BitCast(DI(), hn::LoadU(DF(), values + i));
    hn::Store(hn::DemoteTo(DH(), Format::convert(bits)), DH(), copy);
    std::memcpy(halves + 2 * i, copy, sizeof copy);
  }
  for (; i < count; ++i) {
    const uint16_t half = Format::one(values[i]);
    std::memcpy(halves + 2 * i, &half, 2);
  }
}

void WidenF16(const std::byte* halves, float* out, int64_t count) { widen<FromF16>(halves, out, count); }
void WidenBF16(const std::byte* halves, float* out, int64_t count) { widen<FromBF16>(halves, out, count); }
void NarrowF16(const float* values, std::byte* halves, int64_t count) { narrow<ToF16>(values, halves, count); }
void NarrowBF16(const float* values, std::byte* halves, int64_t count) { narrow<ToBF16>(values, halves, count); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare {

HWY_EXPORT(WidenF16);
HWY_EXPORT(WidenBF16);
HWY_EXPORT(NarrowF16);
HWY_EXPORT(NarrowBF16);

void f16_to_f32(const std::byte* halves, float* out, int64_t count) {
  HWY_DYNAMIC_DISPATCH(WidenF16)(halves, out, count);
}
void bf16_to_f32(const std::byte* halves, float* out, int64_t count) {
  HWY_DYNAMIC_DISPATCH(WidenBF16)(halves, out, count);
}
void f32_to_f16(const float* values, std::byte* halves, int64_t count) {
  HWY_DYNAMIC_DISPATCH(NarrowF16)(values, halves, count);
}
void f32_to_bf16(const float* values, std::byte* halves, int64_t count) {
  HWY_DYNAMIC_DISPATCH(NarrowBF16)(values, halves, count);
}

}  // namespace pare
#endif
