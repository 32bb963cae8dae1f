#include "pare/kernels/tile_products.h"

#include <algorithm>
#include <cstring>

#include "pare/kernels/kernel.h"
#include "pare/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/kernels/tile_products.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace pare {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, kLanes>;
using DU = hn::Rebind<uint32_t, DF>;
using DI = hn::Rebind<int32_t, DF>;
using VF = hn::Vec<DF>;
using VU = hn::Vec<DU>;
constexpr int kN = static_cast<int>(hn::MaxLanes(DF()));
constexpr int kParts = kLanes / kN;  // vectors that make up 16 rows
constexpr int64_t kLineDwords = kLine / 4;
constexpr int64_t kRunUnits = 8;      // read by every part while they are in L1
constexpr int64_t kAhead = 7 * 1024;  // bytes: what hides memory's latency (docs: kernels.md §3)

// 2^23 + n for an integer n < 2^23 is the bit pattern kMagic | n: codes become floats without a conversion.
constexpr uint32_t kMagic = 0x4B000000;
constexpr float kMagicValue = 0x1p23f;

template <int kShift>
HWY_INLINE VU shifted_up(VU v) {
  if constexpr (kShift > 0) return hn::ShiftLeft<kShift>(v);
  if constexpr (kShift < 0) return hn::ShiftRight<-kShift>(v);
  return v;
}

// Codes of columns 4 i … 4 i + 3, one per byte. Bits above a code may hold anything.
template <int kBits, int i>
HWY_INLINE VU codes4(const uint32_t* unit) {
  const DU du;
  if constexpr (kBits == 8) return hn::Load(du, unit + i * kLineDwords);
  if constexpr (kBits == 4) return shifted_up < i < 4 ? 0 : -4 > (hn::Load(du, unit + i % 4 * kLineDwords));
  VU codes = hn::Zero(du);
  if constexpr ((kBits & 4) != 0) {
    const VU line = shifted_up < i < 4 ? 0 : -4 > (hn::Load(du, unit + i % 4 * kLineDwords));
    codes = hn::And(line, hn::Set(du, 0x0F0F0F0Fu));
    unit += 4 * kLineDwords;
  }
  if constexpr ((kBits & 2) != 0) {
    constexpr int kAt = kBits & 4;
    const VU line = shifted_up<kAt - i % 4 * 2>(hn::Load(du, unit + i / 4 * kLineDwords));
    codes = hn::OrAnd(codes, line, hn::Set(du, 0x03030303u << kAt));
    unit += 2 * kLineDwords;
  }
  if constexpr ((kBits & 1) != 0) {
    constexpr int kAt = kBits & 6;
    const VU line = shifted_up<kAt - i>(hn::Load(du, unit));
    codes = hn::OrAnd(codes, line, hn::Set(du, 0x01010101u << kAt));
  }
  return codes;
}

// code - zero of even columns and 2^8 (code - zero) of odd ones, exact: zeros come with the magic number added.
struct Zeros {
  VF even, odd;
};
HWY_INLINE Zeros zeros_of(VF zero) {
  const DF df;
  const VF magic = hn::Set(df, kMagicValue);
  return {hn::Add(magic, zero), hn::MulAdd(zero, hn::Set(df, 256.0f), magic)};
}

template <int kBits, int kColumn>
HWY_INLINE VF integer(VU codes, VU codes_down, const Zeros& z) {
  const DF df;
  const DU du;
  constexpr uint32_t kMask = ((1u << kBits) - 1) << (kColumn % 2 * 8);
  const VU from = kColumn < 2 ? codes : codes_down;
  return hn::Sub(hn::BitCast(df, hn::OrAnd(hn::Set(du, kMagic), from, hn::Set(du, kMask))),
                 kColumn % 2 ? z.odd : z.even);
}

// ---- Products of one or two tokens with codes. Every row's sum runs along the columns in one lane.

template <int kTokens>
struct Sums {
  static constexpr int kChains = kTokens >= 8 ? 1 : kTokens == 4 ? 2 : 4;  // independent, to hide the latency of FMA
  VF chain[kTokens][kChains];

  HWY_INLINE void clear() {
    for (auto& token : chain)
      for (VF& v : token) v = hn::Zero(DF());
  }
  HWY_INLINE VF of(int token) const {
    VF sum = chain[token][0];
    for (int i = 1; i < kChains; ++i) sum = hn::Add(sum, chain[token][i]);
    return sum;
  }
};

template <int kBits, int i, int kTokens>
HWY_INLINE void add4(const uint32_t* unit, const float* x, const Zeros& z, Sums<kTokens>& sums) {
  const DF df;
  constexpr int kChains = Sums<kTokens>::kChains;
  const VU codes = codes4<kBits, i>(unit), down = hn::ShiftRight<16>(codes);
  const VF w0 = integer<kBits, 0>(codes, down, z), w1 = integer<kBits, 1>(codes, down, z);
  const VF w2 = integer<kBits, 2>(codes, down, z), w3 = integer<kBits, 3>(codes, down, z);
  const float* from = x + 4 * i * kTokens;
  for (int t = 0; t < kTokens; ++t) {
    auto& chain = sums.chain[t];
    chain[0] = hn::MulAdd(w0, hn::Set(df, from[t]), chain[0]);
    chain[1 % kChains] = hn::MulAdd(w1, hn::Set(df, from[kTokens + t]), chain[1 % kChains]);
    chain[2 % kChains] = hn::MulAdd(w2, hn::Set(df, from[2 * kTokens + t]), chain[2 % kChains]);
    chain[3 % kChains] = hn::MulAdd(w3, hn::Set(df, from[3 * kTokens + t]), chain[3 % kChains]);
  }
}

template <int kBits, int kHalf, int kTokens>
HWY_INLINE void add16(const uint32_t* unit, const float* x, const Zeros& z, Sums<kTokens>& sums) {
  add4<kBits, 4 * kHalf + 0>(unit, x, z, sums);
  add4<kBits, 4 * kHalf + 1>(unit, x, z, sums);
  add4<kBits, 4 * kHalf + 2>(unit, x, z, sums);
  add4<kBits, 4 * kHalf + 3>(unit, x, z, sums);
}

HWY_INLINE VF load_halves(const std::byte* from, int64_t index, int part) {
  const hn::Rebind<hwy::float16_t, DF> dh;
  return hn::PromoteTo(DF(), hn::Load(dh, reinterpret_cast<const hwy::float16_t*>(from) + index * kLanes + part * kN));
}
template <class T>
HWY_INLINE VF load_bytes(const std::byte* from, int64_t index, int part) {
  const hn::Rebind<T, DF> db;
  return hn::ConvertTo(
      DF(), hn::PromoteTo(DI(), hn::Load(db, reinterpret_cast<const T*>(from) + index * kLanes + part * kN)));
}

// Where everything of one strip lies.
struct View {
  const TileLayout& t;
  const std::byte* strip;

  template <int kBits>
  HWY_INLINE const uint32_t* unit(int64_t u, int part) const {
    return reinterpret_cast<const uint32_t*>(strip + t.codes_at + u * kBits * kLine) + part * kN;
  }
  template <int kBits>
  HWY_INLINE void prefetch(int64_t u) const {
    const std::byte* p = strip + t.codes_at + u * kBits * kLine + kAhead;
    for (int line = 0; line < kBits; ++line) hwy::Prefetch(p + line * kLine);
  }
  HWY_INLINE VF scale(int64_t window, int part) const { return load_halves(strip, window, part); }
  HWY_INLINE VF dmin(int64_t window, int part) const { return load_halves(strip + t.dmin_at, window, part); }
  template <class T>
  HWY_INLINE VF sub(int64_t run, int part) const {
    return load_bytes<T>(strip + t.sub_at, run, part);
  }
  HWY_INLINE VF min(int64_t run, int part) const { return load_bytes<uint8_t>(strip + t.min_at, run, part); }
  HWY_INLINE Zeros zeros(int64_t window, int part) const {
    return zeros_of(t.fixed_zero >= 0 ? hn::Set(DF(), static_cast<float>(t.fixed_zero)) : sub<uint8_t>(window, part));
  }
};

// One block of tokens.
struct Input {
  const float* x;
  const float* sums;
};

template <int kTokens>
struct Totals {
  VF total[kTokens][kParts];
  HWY_INLINE Totals() {
    for (auto& token : total)
      for (VF& v : token) v = hn::Zero(DF());
  }
  HWY_INLINE void store(float* out) const {
    for (int t = 0; t < kTokens; ++t)
      for (int part = 0; part < kParts; ++part) hn::Store(total[t][part], DF(), out + t * kLanes + part * kN);
  }
};

// Per window: scale Σ x (code - zero). Windows are cut so that what one part read is in L1 for the next.
template <int kBits>
struct AffineStrip {
  template <int kTokens>
  static HWY_INLINE void run(const View& v, const Input& in, float* out) {
    Totals<kTokens> totals;
    const int64_t window_units = std::max<int64_t>(1, (v.t.window + kUnit - 1) / kUnit);
    for (int64_t window = 0, begin = 0; begin < v.t.units; ++window, begin += window_units) {
      const int64_t window_end = std::min(begin + window_units, v.t.units);
      for (int64_t first = begin; first < window_end; first += kRunUnits)
        for (int part = 0; part < kParts; ++part)
          add_run(v, in, window, first, std::min(first + kRunUnits, window_end), part, totals);
    }
    totals.store(out);
  }

 private:
  template <int kTokens>
  static HWY_INLINE void add_run(const View& v, const Input& in, int64_t window, int64_t first, int64_t last, int part,
                                 Totals<kTokens>& totals) {
    const Zeros z = v.zeros(window, part);
    Sums<kTokens> sums;
    sums.clear();
    for (int64_t u = first; u < last; ++u) {
      if (part == 0) v.template prefetch<kBits>(u);
      add16<kBits, 0>(v.template unit<kBits>(u, part), in.x + u * kUnit * kTokens, z, sums);
      add16<kBits, 1>(v.template unit<kBits>(u, part), in.x + u * kUnit * kTokens, z, sums);
    }
    const VF scale = v.scale(window, part);
    for (int t = 0; t < kTokens; ++t) totals.total[t][part] = hn::MulAdd(scale, sums.of(t), totals.total[t][part]);
  }
};

// Per 256 columns: d Σ sub_scale Σ x code - dmin Σ sub_min Σ x.
struct SubMinsStrip {
  template <int kTokens>
  static HWY_INLINE void run(const View& v, const Input& in, float* out) {
    const DF df;
    Totals<kTokens> totals;
    const Zeros z = zeros_of(hn::Zero(df));
    for (int64_t window = 0; window < v.t.windows; ++window)
      for (int part = 0; part < kParts; ++part) {
        VF scaled[kTokens], mins[kTokens];
        for (int t = 0; t < kTokens; ++t) scaled[t] = mins[t] = hn::Zero(df);
        for (int64_t u = window * 8; u < window * 8 + 8; ++u) {
          if (part == 0) v.template prefetch<4>(u);
          Sums<kTokens> sums;
          sums.clear();
          add16<4, 0>(v.template unit<4>(u, part), in.x + u * kUnit * kTokens, z, sums);
          add16<4, 1>(v.template unit<4>(u, part), in.x + u * kUnit * kTokens, z, sums);
          const VF scale = v.template sub<uint8_t>(u, part), min = v.min(u, part);
          for (int t = 0; t < kTokens; ++t) {
            scaled[t] = hn::MulAdd(scale, sums.of(t), scaled[t]);
            mins[t] = hn::MulAdd(min, hn::Set(df, in.sums[u * kTokens + t]), mins[t]);
          }
        }
        const VF d = v.scale(window, part), dmin = v.dmin(window, part);
        for (int t = 0; t < kTokens; ++t)
          totals.total[t][part] = hn::NegMulAdd(dmin, mins[t], hn::MulAdd(d, scaled[t], totals.total[t][part]));
      }
    totals.store(out);
  }
};

// Per 256 columns: d Σ sub_scale Σ x (code - 32), sub-scales per 16.
struct SignedScalesStrip {
  template <int kTokens>
  static HWY_INLINE void run(const View& v, const Input& in, float* out) {
    const DF df;
    Totals<kTokens> totals;
    const Zeros z = zeros_of(hn::Set(df, static_cast<float>(v.t.fixed_zero)));
    for (int64_t window = 0; window < v.t.windows; ++window)
      for (int part = 0; part < kParts; ++part) {
        VF scaled[kTokens];
        for (VF& s : scaled) s = hn::Zero(df);
        for (int64_t u = window * 8; u < window * 8 + 8; ++u) {
          if (part == 0) v.template prefetch<6>(u);
          Sums<kTokens> low, high;
          low.clear();
          high.clear();
          add16<6, 0>(v.template unit<6>(u, part), in.x + u * kUnit * kTokens, z, low);
          add16<6, 1>(v.template unit<6>(u, part), in.x + u * kUnit * kTokens, z, high);
          const VF first = v.template sub<int8_t>(2 * u, part), second = v.template sub<int8_t>(2 * u + 1, part);
          for (int t = 0; t < kTokens; ++t)
            scaled[t] = hn::MulAdd(second, high.of(t), hn::MulAdd(first, low.of(t), scaled[t]));
        }
        const VF d = v.scale(window, part);
        for (int t = 0; t < kTokens; ++t) totals.total[t][part] = hn::MulAdd(d, scaled[t], totals.total[t][part]);
      }
    totals.store(out);
  }
};

template <class Strip, int kTokens>
HWY_INLINE void multiply_strip(const View& v, const TileActivations& a, int64_t token, int64_t row, float* y,
                               int64_t y_stride) {
  alignas(64) float out[kTokens * kLanes];
  Strip::template run<kTokens>(v, {a.x + token * a.columns, a.sums + token * a.units}, out);
  const int64_t rows = std::min<int64_t>(kLanes, v.t.shape.rows - row);
  for (int64_t t = 0; t < kTokens; ++t)
    std::memcpy(y + (token + t) * y_stride + row, out + t * kLanes, static_cast<size_t>(rows) * sizeof(float));
}

template <class Strip>
void multiply_codes_as(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                       int64_t y_stride) {
  for (int64_t s = first; s < last; ++s) {
    const View view{tiles.layout, tiles.strip(s)};
    int64_t t = 0;
    for (; t + 2 <= a.tokens; t += 2) multiply_strip<Strip, 2>(view, a, t, s * kLanes, y, y_stride);
    if (t < a.tokens) multiply_strip<Strip, 1>(view, a, t, s * kLanes, y, y_stride);
  }
}

void MultiplyCodes(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                   int64_t y_stride) {
  const auto as = [&]<class Strip>(Strip) { multiply_codes_as<Strip>(tiles, a, first, last, y, y_stride); };
  if (tiles.layout.kind == TileKind::sub_mins) return as(SubMinsStrip());
  if (tiles.layout.kind == TileKind::signed_scales) return as(SignedScalesStrip());
  switch (tiles.layout.bits) {
    case 2:
      return as(AffineStrip<2>());
    case 3:
      return as(AffineStrip<3>());
    case 4:
      return as(AffineStrip<4>());
    case 5:
      return as(AffineStrip<5>());
    case 6:
      return as(AffineStrip<6>());
    case 7:
      return as(AffineStrip<7>());
    default:
      return as(AffineStrip<8>());
  }
}

// ---- Values. The same operations as dequantize_rows, or exact ones in their place: scale (code - zero) is
// scale 2^-8 times 2^8 (code - zero), and products with d and the sub-scale have at most 24 significant bits.

struct ValueLine {
  VF even, odd;  // scale, and scale 2^-8 for odd columns
  Zeros z;
  VF min;
};
HWY_INLINE ValueLine value_line(VF scale, const Zeros& z, VF min) {
  return {scale, hn::Mul(scale, hn::Set(DF(), 0x1p-8f)), z, min};
}

template <int kBits, int i>
HWY_INLINE void store4(const uint32_t* unit, const ValueLine& line, float* out, int64_t stride) {
  const DF df;
  const VU codes = codes4<kBits, i>(unit), down = hn::ShiftRight<16>(codes);
  const auto value = [&](VF integers, VF scale) HWY_ATTR { return hn::Sub(hn::Mul(scale, integers), line.min); };
  float* to = out + 4 * i * stride;
  hn::StoreU(value(integer<kBits, 0>(codes, down, line.z), line.even), df, to);
  hn::StoreU(value(integer<kBits, 1>(codes, down, line.z), line.odd), df, to + stride);
  hn::StoreU(value(integer<kBits, 2>(codes, down, line.z), line.even), df, to + 2 * stride);
  hn::StoreU(value(integer<kBits, 3>(codes, down, line.z), line.odd), df, to + 3 * stride);
}
template <int kBits, int kHalf>
HWY_INLINE void store16(const uint32_t* unit, const ValueLine& line, float* out, int64_t stride) {
  store4<kBits, 4 * kHalf + 0>(unit, line, out, stride);
  store4<kBits, 4 * kHalf + 1>(unit, line, out, stride);
  store4<kBits, 4 * kHalf + 2>(unit, line, out, stride);
  store4<kBits, 4 * kHalf + 3>(unit, line, out, stride);
}

// The line of half a unit's columns.
HWY_INLINE ValueLine line_of(const View& v, int64_t unit, int half, int part) {
  const DF df;
  const int64_t window = unit * kUnit / v.t.window;
  const VF scale = v.scale(window, part), none = hn::Zero(df);
  const Zeros fixed = zeros_of(hn::Set(df, static_cast<float>(v.t.fixed_zero)));
  if (v.t.kind == TileKind::sub_mins)
    return value_line(hn::Mul(scale, v.sub<uint8_t>(unit, part)), fixed,
                      hn::Mul(v.dmin(window, part), v.min(unit, part)));
  if (v.t.kind == TileKind::signed_scales)
    return value_line(hn::Mul(scale, v.sub<int8_t>(2 * unit + half, part)), fixed, none);
  return value_line(scale, v.zeros(window, part), none);
}

template <int kBits>
void expand_units(const View& v, int64_t first, int64_t last, float* out, int64_t stride) {
  for (int64_t u = first; u < last; ++u) {
    float* to = out + (u - first) * kUnit * stride;
    for (int part = 0; part < kParts; ++part) {
      store16<kBits, 0>(v.template unit<kBits>(u, part), line_of(v, u, 0, part), to + part * kN, stride);
      store16<kBits, 1>(v.template unit<kBits>(u, part), line_of(v, u, 1, part), to + part * kN, stride);
    }
  }
}

void expand_strip(const View& v, int64_t first, int64_t last, float* out, int64_t stride) {
  switch (v.t.bits) {
    case 2:
      return expand_units<2>(v, first, last, out, stride);
    case 3:
      return expand_units<3>(v, first, last, out, stride);
    case 4:
      return expand_units<4>(v, first, last, out, stride);
    case 5:
      return expand_units<5>(v, first, last, out, stride);
    case 6:
      return expand_units<6>(v, first, last, out, stride);
    case 7:
      return expand_units<7>(v, first, last, out, stride);
    default:
      return expand_units<8>(v, first, last, out, stride);
  }
}

void ExpandTiles(const Tiles& tiles, int64_t strip, int64_t first, int64_t last, float* out, int64_t stride) {
  expand_strip(View{tiles.layout, tiles.strip(strip)}, first, last, out, stride);
}

// ---- Products of many tokens with values.

// y (kTokens x 16 rows) = or += x (columns x kTokens) times values (columns x 16); columns a multiple of 4.
template <int kTokens>
void multiply_panel(const float* values, const float* x, int64_t columns, bool add, float* y, int64_t y_stride) {
  const DF df;
  constexpr int kChains = Sums<kTokens>::kChains;
  for (int part = 0; part < kParts; ++part) {
    Sums<kTokens> sums;
    sums.clear();
    for (int64_t c = 0; c < columns; c += kChains)
      for (int i = 0; i < kChains; ++i) {
        const VF w = hn::Load(df, values + (c + i) * kLanes + part * kN);
        const float* from = x + (c + i) * kTokens;
        for (int t = 0; t < kTokens; ++t) sums.chain[t][i] = hn::MulAdd(w, hn::Set(df, from[t]), sums.chain[t][i]);
      }
    for (int t = 0; t < kTokens; ++t) {
      float* to = y + t * y_stride + part * kN;
      const VF sum = sums.of(t);
      hn::StoreU(add ? hn::Add(hn::LoadU(df, to), sum) : sum, df, to);
    }
  }
}

void multiply_panel_blocks(const float* values, const TileActivations& a, int64_t first_col, int64_t columns, float* y,
                           int64_t y_stride) {
  const bool add = first_col > 0;
  for (int64_t t = 0, n = 0; t < a.tokens; t += n) {
    n = TileActivations::block_at(a.tokens - t, TileActivations::kMostValues);
    const float* x = a.x + t * a.columns + first_col * n;
    float* to = y + t * y_stride;
    if (n == 8) multiply_panel<8>(values, x, columns, add, to, y_stride);
    if (n == 4) multiply_panel<4>(values, x, columns, add, to, y_stride);
    if (n == 2) multiply_panel<2>(values, x, columns, add, to, y_stride);
    if (n == 1) multiply_panel<1>(values, x, columns, add, to, y_stride);
  }
}

// The activations of 256 columns stay in L2 while all strips pass by. A strip that is not full goes through memory of
// its own, so that nothing is written beyond the last row.
void MultiplyValues(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                    int64_t y_stride) {
  const TileLayout& t = tiles.layout;
  alignas(64) float values[kRunUnits * kUnit * kLanes];
  float* const partial = scratch<1>(a.tokens * kLanes);
  for (int64_t u = 0; u < t.units; u += kRunUnits) {
    const int64_t end = std::min(u + kRunUnits, t.units), columns = (end - u) * kUnit;
    for (int64_t s = first; s < last; ++s) {
      const bool full = (s + 1) * kLanes <= t.shape.rows;
      expand_strip(View{t, tiles.strip(s)}, u, end, values, kLanes);
      multiply_panel_blocks(values, a, u * kUnit, columns, full ? y + s * kLanes : partial, full ? y_stride : kLanes);
    }
  }
  const int64_t row = t.shape.rows / kLanes * kLanes;
  if (last * kLanes <= t.shape.rows) return;
  for (int64_t token = 0; token < a.tokens; ++token)
    std::copy_n(partial + token * kLanes, t.shape.rows - row, y + token * y_stride + row);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare {

HWY_EXPORT(MultiplyCodes);
HWY_EXPORT(MultiplyValues);
HWY_EXPORT(ExpandTiles);

void multiply_codes(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                    int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(MultiplyCodes)(tiles, a, first, last, y, y_stride);
}

void multiply_values(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                     int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(MultiplyValues)(tiles, a, first, last, y, y_stride);
}

void expand_tiles(const Tiles& tiles, int64_t strip, int64_t first, int64_t last, float* out, int64_t stride) {
  HWY_DYNAMIC_DISPATCH(ExpandTiles)(tiles, strip, first, last, out, stride);
}

}  // namespace pare
#endif
