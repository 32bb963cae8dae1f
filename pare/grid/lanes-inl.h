// Vocabulary of the vector kernels. Included once per instruction set (Highway's foreach_target), hence the guard.
#if defined(PARE_GRID_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PARE_GRID_LANES_INL_H_
#undef PARE_GRID_LANES_INL_H_
#else
#define PARE_GRID_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include "pare/grid/lanes.h"
#include "pare/grid/levels.h"
#include "pare/grid/search_tables.h"

HWY_BEFORE_NAMESPACE();
namespace pare::lanes::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::CappedTag<float, kLanes>;  // 16, 8 or 4 rows at a time
using U = hn::RebindToUnsigned<F>;
using I = hn::RebindToSigned<F>;
using V = hn::Vec<F>;
using M = hn::Mask<F>;

HWY_INLINE V number(float x) { return hn::Set(F(), x); }
HWY_INLINE V load(const Lanes& lanes, size_t lane) { return hn::Load(F(), lanes.v + lane); }
HWY_INLINE void store(V x, Lanes& lanes, size_t lane) { hn::Store(x, F(), lanes.v + lane); }
HWY_INLINE V clamp(V x, V lowest, V highest) { return hn::Min(hn::Max(x, lowest), highest); }

// 1 / s; 0 for 0: every weight then gets the level nearest to 0.
HWY_INLINE V reciprocal(V s) { return hn::IfThenElse(hn::Eq(s, hn::Zero(F())), hn::Zero(F()), hn::Div(number(1), s)); }
// a / b; 0 where b is not positive.
HWY_INLINE V quotient(V a, V b) { return hn::IfThenElse(hn::Gt(b, hn::Zero(F())), hn::Div(a, b), hn::Zero(F())); }

// As round_to_f16 of base/float_formats.h for finite x, but ends at ±65504 instead of infinity.
HWY_INLINE V to_f16(V x) {
  const U u;
  const V magnitude = hn::Min(hn::Abs(x), number(65504));
  const auto bits = hn::BitCast(u, magnitude);
  const auto odd = hn::And(hn::ShiftRight<13>(bits), hn::Set(u, 1));
  const auto carried = hn::Add(bits, hn::Add(hn::Set(u, 0xFFF), odd));
  const V normal = hn::BitCast(F(), hn::AndNot(hn::Set(u, 0x1FFF), carried));
  const V subnormal = hn::Sub(hn::Add(magnitude, number(0.5f)), number(0.5f));
  return hn::CopySign(hn::IfThenElse(hn::Lt(magnitude, number(0x1p-14f)), subnormal, normal), x);
}

HWY_INLINE V to_bf16(V x) {  // finite x, to nearest even
  const U u;
  const auto bits = hn::BitCast(u, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  return hn::BitCast(F(), hn::AndNot(hn::Set(u, 0xFFFF), hn::Add(bits, hn::Add(hn::Set(u, 0x7FFF), odd))));
}
// A scale in one of the float kinds.
HWY_INLINE V to_float(ScaleKind kind, V x) {
  return kind == ScaleKind::f32 ? x : kind == ScaleKind::bf16 ? to_bf16(x) : to_f16(x);
}

// Smallest, largest and the signed extreme (the first of largest magnitude) of columns.
struct Range {
  V lowest, highest, extreme;
};
HWY_INLINE Range range_of(const Columns& c, size_t lane) {
  V lowest = load(c.x[0], lane), highest = lowest, extreme = lowest;
  for (int64_t i = 1; i < c.count; ++i) {
    const V x = load(c.x[i], lane);
    lowest = hn::Min(lowest, x);
    highest = hn::Max(highest, x);
    extreme = hn::IfThenElse(hn::Gt(hn::Abs(x), hn::Abs(extreme)), x, extreme);
  }
  return {lowest, highest, extreme};
}

// Evenly spaced levels: the integers of a range.
struct EvenLevels {
  V lowest, highest;
  HWY_INLINE V nearest(V x) const { return hn::Round(clamp(x, lowest, highest)); }
};

// The levels of a table. Few are compared one after another, many are found by halving.
struct TableLevels {
  static constexpr int kFew = 16;
  const LevelTable& table;

  struct Found {
    V level;
    hn::Vec<I> code;
  };
  HWY_INLINE Found find(V x) const { return table.count <= kFew ? find_among_few(x) : find_by_halves(x); }
  HWY_INLINE V nearest(V x) const { return find(x).level; }

 private:
  HWY_INLINE Found find_among_few(V x) const {
    Found found{number(table.level[0]), hn::Zero(I())};
    for (int i = 0; i + 1 < table.count; ++i) {
      const M beyond = hn::Gt(x, number(table.above[i]));
      found.level = hn::IfThenElse(beyond, number(table.level[i + 1]), found.level);
      found.code = hn::IfThenElse(hn::RebindMask(I(), beyond), hn::Set(I(), i + 1), found.code);
    }
    return found;
  }
  HWY_INLINE Found find_by_halves(V x) const {
    auto code = hn::Zero(I());
    for (int step = table.span / 2; step > 0; step /= 2) {
      const V edge = hn::GatherIndex(F(), table.above, hn::Add(code, hn::Set(I(), step - 1)));
      code = hn::Add(code, hn::IfThenElseZero(hn::RebindMask(I(), hn::Gt(x, edge)), hn::Set(I(), step)));
    }
    return {hn::GatherIndex(F(), table.level, code), code};
  }
};

// Weighted sums over columns at the nearest levels l of x + min under a scale: Σ w l, Σ w l², Σ w x l and the error
// Σ w (x + min - scale l)². Callers take what they need; the rest is never computed.
struct Sums {
  V l, ll, xl, error;
};
template <bool kHasMin, class Levels>
HWY_INLINE Sums sums_at(const Columns& c, size_t lane, V scale, V inverse, V min, const Levels& levels) {
  Sums s{hn::Zero(F()), hn::Zero(F()), hn::Zero(F()), hn::Zero(F())};
  for (int64_t i = 0; i < c.count; ++i) {
    const V x = load(c.x[i], lane), w = load(c.importance[i], lane);
    V shifted = x;
    if constexpr (kHasMin) shifted = hn::Add(x, min);
    const V level = levels.nearest(hn::Mul(shifted, inverse));
    const V wl = hn::Mul(w, level), miss = hn::Sub(shifted, hn::Mul(scale, level));
    s.l = hn::Add(s.l, wl);
    s.ll = hn::Add(s.ll, hn::Mul(wl, level));
    s.xl = hn::Add(s.xl, hn::Mul(wl, x));
    s.error = hn::Add(s.error, hn::Mul(w, hn::Mul(miss, miss)));
  }
  return s;
}

template <class Levels>
HWY_INLINE V error_at(const Columns& c, size_t lane, V scale, const Levels& levels) {
  const V inverse = reciprocal(scale);
  return sums_at<false>(c, lane, scale, inverse, hn::Zero(F()), levels).error;
}

// Scale of a grid  value = scale · level: from every factor of start (and both signs where asked) up to three times
// nearest levels, then the least squares of the scale. Returns the one that leaves the least error (not yet rounded to
// storage), 0 for columns of zeros.
template <class Levels>
HWY_INLINE V search_scale(const Columns& c, size_t lane, V start, bool both_signs, const Levels& levels,
                          const Factors& factors) {
  V best = hn::Zero(F()), best_score = hn::Zero(F());
  for (int sign = 0; sign < (both_signs ? 2 : 1); ++sign) {
    V inverse = hn::Mul(start, number(sign ? -factors.first : factors.first));
    for (int k = 0; k < factors.count; ++k, inverse = hn::Mul(inverse, number(factors.ratio))) {
      V now = inverse;
      for (int pass = 0; pass < 3; ++pass) {
        const Sums s = sums_at<false>(c, lane, now, now, now, levels);
        const V scale = quotient(s.xl, s.ll), score = hn::Mul(scale, s.xl);
        const M better = hn::Gt(score, best_score);
        best = hn::IfThenElse(better, scale, best);
        best_score = hn::IfThenElse(better, score, best_score);
        now = reciprocal(scale);
      }
    }
  }
  return best;
}

// A line  value = scale · level - min  with levels 0 … top.
struct ScaleAndMin {
  V scale, min;
};
HWY_INLINE ScaleAndMin range_of_line(const Columns& c, size_t lane, float top, bool holds_zero) {
  const Range range = range_of(c, lane);
  const V lowest = holds_zero ? hn::Min(range.lowest, hn::Zero(F())) : range.lowest;
  return {hn::Div(hn::Sub(range.highest, lowest), number(top)), hn::Sub(hn::Zero(F()), lowest)};
}

// Least squares of x = scale · level - min, min ≥ 0 where asked; `gain` is what it takes off Σ w x².
struct LineSolution {
  V scale, min, gain;
};
HWY_INLINE LineSolution solved(const Sums& s, V w, V wx, bool holds_zero) {
  const V determinant = hn::Sub(hn::Mul(w, s.ll), hn::Mul(s.l, s.l));
  V scale = quotient(hn::Sub(hn::Mul(w, s.xl), hn::Mul(s.l, wx)), determinant);
  V min = quotient(hn::Sub(hn::Mul(scale, s.l), wx), w);
  if (holds_zero) {
    const M below = hn::Lt(min, hn::Zero(F()));
    scale = hn::IfThenElse(below, quotient(s.xl, s.ll), scale);
    min = hn::IfThenElse(below, hn::Zero(F()), min);
  }
  return {scale, min, hn::Sub(hn::Mul(scale, s.xl), hn::Mul(min, wx))};
}

HWY_INLINE ScaleAndMin search_line(const Columns& c, size_t lane, const ScaleAndMin& range, float top, bool holds_zero,
                                   const Starts& starts) {
  constexpr int kPasses = 4;
  const EvenLevels levels{hn::Zero(F()), number(top)};
  V w = hn::Zero(F()), wx = hn::Zero(F());
  for (int64_t i = 0; i < c.count; ++i) {
    const V importance = load(c.importance[i], lane);
    w = hn::Add(w, importance);
    wx = hn::Add(wx, hn::Mul(importance, load(c.x[i], lane)));
  }
  const V inverse = reciprocal(range.scale);
  ScaleAndMin best = range;
  V best_gain = number(-3.0e38f);
  for (int k = 0; k < starts.count; ++k) {
    V now = hn::Mul(inverse, number((top + starts.first + starts.step * static_cast<float>(k)) / top)), min = range.min;
    V last_gain = number(-3.0e38f);
    M active = hn::Eq(last_gain, last_gain);
    for (int pass = 0; pass < kPasses; ++pass) {
      const Sums s = sums_at<true>(c, lane, now, now, min, levels);
      const LineSolution found = solved(s, w, wx, holds_zero);
      active = hn::And(active, hn::Gt(found.gain, last_gain));  // per lane: lanes must not depend on each other
      if (hn::AllFalse(F(), active)) break;
      const M better = hn::And(active, hn::Gt(found.gain, best_gain));
      best.scale = hn::IfThenElse(better, found.scale, best.scale);
      best.min = hn::IfThenElse(better, found.min, best.min);
      best_gain = hn::IfThenElse(better, found.gain, best_gain);
      last_gain = found.gain;
      min = found.min;
      now = reciprocal(found.scale);
    }
  }
  return best;
}

}  // namespace pare::lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // guard
