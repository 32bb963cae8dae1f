// Fits of grids with one scale (and zero point or min) per run of columns: int-affine groups, blocks of GGUF. Scales
// are rounded to f16 before their error is measured, and a search never ends above the error of the range.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/grid/fit_scales.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include <algorithm>

#include "pare/grid/families.h"
#include "pare/grid/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pare::lanes::HWY_NAMESPACE {

HWY_INLINE V positive(ScaleKind kind, V x) {
  return hn::Max(to_float(kind, x), number(kind == ScaleKind::f16 ? kSmallestF16 : kSmallestScale));
}

// ---- int-affine

HWY_INLINE V symmetric_range(const Range& range, float top, ScaleKind kind) {
  const V magnitude = hn::Abs(range.extreme);
  const V span = hn::IfThenElse(hn::Gt(magnitude, hn::Zero(F())), magnitude, number(1));  // zeros: ±1, as the peers
  return positive(kind, hn::Div(hn::Add(span, span), number(top)));
}

void fit_symmetric(const Columns& c, const AffineSpec& spec, Search search, ScaleFit& out) {
  const float top = static_cast<float>((1 << spec.bits) - 1), middle = static_cast<float>(1 << (spec.bits - 1));
  const EvenLevels levels{number(-middle), number(top - middle)};
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    const Range range = range_of(c, lane);
    V scale = symmetric_range(range, top, spec.scale);
    if (search == Search::error) {
      const V start = quotient(number(middle), hn::Abs(range.extreme));
      const V stored =
          positive(spec.scale, search_scale(c, lane, start, false, levels, kSymmetricGroup[spec.bits - 2]));
      const M better = hn::Lt(error_at(c, lane, stored, levels), error_at(c, lane, scale, levels));
      scale = hn::IfThenElse(better, stored, scale);
    }
    store(scale, out.scale, lane);
    store(number(middle), out.zero, lane);
  }
}

// A scale and a zero point for weights in [lowest, highest], which holds 0.
struct ZeroPoint {
  V scale, zero;
};
struct ZeroLimits {
  float top, lowest;
  ScaleKind kind;
};
HWY_INLINE ZeroPoint zero_point(V lowest, V highest, const ZeroLimits& limits) {
  const V by_span = hn::Div(hn::Sub(highest, lowest), number(limits.top));
  const V by_top = hn::Div(highest, number(limits.top - limits.lowest));  // where the zero may not reach 0
  const V scale = positive(limits.kind, hn::Max(by_span, by_top));
  const V zero = hn::Round(hn::Div(hn::Neg(lowest), scale));
  return {scale, clamp(zero, number(limits.lowest), number(limits.top))};
}

// Weighted least squares of x = scale · level + shift gives a better scale and zero for the same codes.
HWY_INLINE ZeroPoint refitted(const ZeroPoint& p, const Sums& s, V w, V wx, const ZeroLimits& limits) {
  const V determinant = hn::Sub(hn::Mul(w, s.ll), hn::Mul(s.l, s.l));
  const V slope = quotient(hn::Sub(hn::Mul(w, s.xl), hn::Mul(s.l, wx)), determinant);
  const V shift = quotient(hn::Sub(wx, hn::Mul(slope, s.l)), w);
  const V wanted = hn::Round(hn::Sub(p.zero, hn::Mul(shift, reciprocal(slope))));
  const V zero = clamp(wanted, number(limits.lowest), number(limits.top)), moved = hn::Sub(p.zero, zero);
  const V xl = hn::Add(s.xl, hn::Mul(moved, wx));
  const V ll = hn::Add(s.ll, hn::Mul(moved, hn::Add(hn::Add(s.l, s.l), hn::Mul(moved, w))));
  return {positive(limits.kind, quotient(xl, ll)), zero};
}

HWY_INLINE ZeroPoint search_zero_point(const Columns& c, size_t lane, V lowest, V highest, const ZeroPoint& range,
                                       const ZeroLimits& limits, const Factors& factors) {
  V w = hn::Zero(F()), wx = hn::Zero(F());
  for (int64_t i = 0; i < c.count; ++i) {
    const V importance = load(c.importance[i], lane);
    w = hn::Add(w, importance);
    wx = hn::Add(wx, hn::Mul(importance, load(c.x[i], lane)));
  }
  enum { kBoth, kUpper, kLower, kCuts };
  ZeroPoint best = range;
  V least = number(3.0e38f);
  for (int cut = kBoth; cut < kCuts; ++cut) {
    float factor = factors.first;
    for (int k = 0; k < factors.count; ++k, factor *= factors.ratio) {
      const V shrink = number(1 / factor);
      ZeroPoint p = zero_point(cut == kUpper ? lowest : hn::Mul(lowest, shrink),
                               cut == kLower ? highest : hn::Mul(highest, shrink), limits);
      if (k == 0) p = range;
      for (int pass = 0; pass < 3; ++pass) {
        const EvenLevels levels{hn::Neg(p.zero), hn::Sub(number(limits.top), p.zero)};
        const Sums s = sums_at<false>(c, lane, p.scale, hn::Div(number(1), p.scale), p.zero, levels);
        const M better = hn::Lt(s.error, least);
        least = hn::IfThenElse(better, s.error, least);
        best.scale = hn::IfThenElse(better, p.scale, best.scale);
        best.zero = hn::IfThenElse(better, p.zero, best.zero);
        p = refitted(p, s, w, wx, limits);
      }
    }
  }
  return best;
}

void fit_zero_point(const Columns& c, const AffineSpec& spec, Search search, ScaleFit& out) {
  const ZeroLimits limits{static_cast<float>((1 << spec.bits) - 1), static_cast<float>(spec.lowest_zero), spec.scale};
  const Factors& factors = kZeroPointGroup[spec.bits - 2];
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    const Range range = range_of(c, lane);
    V lowest = hn::Min(range.lowest, hn::Zero(F())), highest = hn::Max(range.highest, hn::Zero(F()));
    const M zeros = hn::Eq(range.extreme, hn::Zero(F()));
    lowest = hn::IfThenElse(zeros, number(-1), lowest);
    highest = hn::IfThenElse(zeros, number(1), highest);
    ZeroPoint p = zero_point(lowest, highest, limits);
    if (search == Search::error) p = search_zero_point(c, lane, lowest, highest, p, limits, factors);
    store(p.scale, out.scale, lane);
    store(p.zero, out.zero, lane);
  }
}

// ---- a real bias in the place of the zero: value = scale code + bias, codes from 0

struct Biased {
  V scale, bias;
};
HWY_INLINE Biased biased_range(V lowest, V highest, float top, ScaleKind kind) {
  return {positive(kind, hn::Div(hn::Sub(highest, lowest), number(top))), to_float(kind, lowest)};
}

HWY_INLINE Biased search_biased(const Columns& c, size_t lane, const Range& range, const Biased& first, float top,
                                ScaleKind kind, const Factors& factors) {
  V w = hn::Zero(F()), wx = hn::Zero(F());
  for (int64_t i = 0; i < c.count; ++i) {
    const V importance = load(c.importance[i], lane);
    w = hn::Add(w, importance);
    wx = hn::Add(wx, hn::Mul(importance, load(c.x[i], lane)));
  }
  const EvenLevels levels{hn::Zero(F()), number(top)};
  const V middle = hn::Mul(hn::Add(range.lowest, range.highest), number(0.5f));
  const V half = hn::Mul(hn::Sub(range.highest, range.lowest), number(0.5f));
  enum { kBoth, kUpper, kLower, kCuts };
  Biased best = first;
  V least = number(3.0e38f);
  for (int cut = kBoth; cut < kCuts; ++cut) {
    float factor = factors.first;
    for (int k = 0; k < factors.count; ++k, factor *= factors.ratio) {
      const V shrunk = hn::Mul(half, number(1 / factor));
      Biased p = biased_range(cut == kUpper ? range.lowest : hn::Sub(middle, shrunk),
                              cut == kLower ? range.highest : hn::Add(middle, shrunk), top, kind);
      if (k == 0) p = first;
      for (int pass = 0; pass < 3; ++pass) {
        const Sums s = sums_at<true>(c, lane, p.scale, hn::Div(number(1), p.scale), hn::Neg(p.bias), levels);
        const M better = hn::Lt(s.error, least);
        least = hn::IfThenElse(better, s.error, least);
        best.scale = hn::IfThenElse(better, p.scale, best.scale);
        best.bias = hn::IfThenElse(better, p.bias, best.bias);
        // Weighted least squares of x = scale · level + bias for the same codes.
        const V determinant = hn::Sub(hn::Mul(w, s.ll), hn::Mul(s.l, s.l));
        const V slope = quotient(hn::Sub(hn::Mul(w, s.xl), hn::Mul(s.l, wx)), determinant);
        p.scale = positive(kind, slope);
        p.bias = to_float(kind, quotient(hn::Sub(wx, hn::Mul(p.scale, s.l)), w));
      }
    }
  }
  return best;
}

void fit_biased(const Columns& c, const AffineSpec& spec, Search search, ScaleFit& out) {
  const float top = static_cast<float>((1 << spec.bits) - 1);
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    const Range range = range_of(c, lane);
    Biased p = biased_range(range.lowest, range.highest, top, spec.scale);
    if (search == Search::error) p = search_biased(c, lane, range, p, top, spec.scale, kZeroPointGroup[spec.bits - 2]);
    store(p.scale, out.scale, lane);
    store(p.bias, out.zero, lane);
  }
}

void FitAffine(const Columns& columns, const AffineSpec& spec, Search search, ScaleFit& out) {
  if (spec.biased) return fit_biased(columns, spec, search, out);
  spec.symmetric ? fit_symmetric(columns, spec, search, out) : fit_zero_point(columns, spec, search, out);
}

// ---- GGUF blocks

void fit_block_scale(const Columns& c, const BlockTraits& t, Search search, BlockFit& out) {
  const EvenLevels levels{number(static_cast<float>(-t.middle)), number(static_cast<float>(t.top - t.middle))};
  const bool extreme_is_code_0 = t.top == 15 || t.top == 31;  // as in the files of the reference
  const auto nearer = static_cast<float>(std::min(t.middle, t.top - t.middle));
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    const Range range = range_of(c, lane);
    V scale = to_f16(extreme_is_code_0 ? hn::Div(range.extreme, levels.lowest)
                                       : hn::Div(hn::Abs(range.extreme), number(nearer)));
    if (search == Search::error) {
      const V start = quotient(number(static_cast<float>(t.middle)), hn::Abs(range.extreme));
      const V stored = to_f16(search_scale(c, lane, start, true, levels, factors_of_levels(t.top + 1)));
      const M better = hn::Lt(error_at(c, lane, stored, levels), error_at(c, lane, scale, levels));
      scale = hn::IfThenElse(better, stored, scale);
    }
    store(hn::Add(scale, hn::Zero(F())), out.scale, lane);  // blocks of zeros: +0
  }
}

void fit_block_line(const Columns& c, const BlockTraits& t, Search search, BlockFit& out) {
  const auto top = static_cast<float>(t.top);
  const EvenLevels levels{hn::Zero(F()), number(top)};
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    const ScaleAndMin range = range_of_line(c, lane, top, false);
    const auto error = [&](const ScaleAndMin& line) HWY_ATTR {
      return sums_at<true>(c, lane, line.scale, reciprocal(line.scale), line.min, levels).error;
    };
    ScaleAndMin line{to_f16(range.scale), to_f16(range.min)};
    if (search == Search::error) {
      ScaleAndMin found = range;
      for (int round = 0; round < 2; ++round) {  // again around what was found: another min leads to other codes
        found = search_line(c, lane, found, top, false, kBlockStarts);
        const ScaleAndMin stored{to_f16(found.scale), to_f16(found.min)};
        const M better = hn::Lt(error(stored), error(line));
        line.scale = hn::IfThenElse(better, stored.scale, line.scale);
        line.min = hn::IfThenElse(better, stored.min, line.min);
      }
    }
    store(line.scale, out.scale, lane);
    store(line.min, out.min, lane);
  }
}

void FitBlock(const Columns& c, const BlockTraits& t, Search search, BlockFit& out) {
  t.mins ? fit_block_line(c, t, search, out) : fit_block_scale(c, t, search, out);
}

}  // namespace pare::lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare::lanes {

HWY_EXPORT(FitAffine);
HWY_EXPORT(FitBlock);

void fit_affine(const Columns& columns, const AffineSpec& spec, Search search, ScaleFit& out) {
  HWY_DYNAMIC_DISPATCH(FitAffine)(columns, spec, search, out);
}
void fit_block(const Columns& columns, const BlockTraits& traits, Search search, BlockFit& out) {
  HWY_DYNAMIC_DISPATCH(FitBlock)(columns, traits, search, out);
}

}  // namespace pare::lanes
#endif
