// Fits of super-blocks (design/quality.md §3.2): a search per sub-block for its best real scale (and min), then a
// search over the super-scales d (and dmin) in which every candidate's integers are chosen by the exact error of the
// codes they lead to, then least squares for d (and dmin) given all integers and codes.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/grid/fit_super.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "pare/grid/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pare::lanes::HWY_NAMESPACE {

template <class T>
HWY_INLINE V lowest_level() {
  return number(T::kLowestLevel);
}
template <class T>
HWY_INLINE V highest_level() {
  return number(T::kHighestLevel);
}
template <class T>
HWY_INLINE EvenLevels levels_of() {
  return {lowest_level<T>(), highest_level<T>()};
}

// ---- one sub-block's best real scale and min

struct ScaleAndMin {
  V scale, min;
};

HWY_INLINE ScaleAndMin range_affine(const Columns& c, size_t lane) {
  const Range range = range_of(c, lane);
  const V lowest = hn::Min(range.lowest, hn::Zero(F()));
  return {hn::Div(hn::Sub(range.highest, lowest), number(15)), hn::Sub(hn::Zero(F()), lowest)};
}

// Least squares of x = scale · level - min, min ≥ 0; `gain` is what it takes off Σ w x².
struct AffineSolution {
  V scale, min, gain;
};
HWY_INLINE AffineSolution solved(const Sums& s, V w, V wx) {
  const V determinant = hn::Sub(hn::Mul(w, s.ll), hn::Mul(s.l, s.l));
  V scale = quotient(hn::Sub(hn::Mul(w, s.xl), hn::Mul(s.l, wx)), determinant);
  V min = quotient(hn::Sub(hn::Mul(scale, s.l), wx), w);
  const M below = hn::Lt(min, hn::Zero(F()));
  scale = hn::IfThenElse(below, quotient(s.xl, s.ll), scale);
  min = hn::IfThenElse(below, hn::Zero(F()), min);
  return {scale, min, hn::Sub(hn::Mul(scale, s.xl), hn::Mul(min, wx))};
}

HWY_INLINE ScaleAndMin search_affine(const Columns& c, size_t lane, const ScaleAndMin& range) {
  constexpr int kStarts = 21, kPasses = 4;
  V w = hn::Zero(F()), wx = hn::Zero(F());
  for (int64_t i = 0; i < c.count; ++i) {
    const V importance = load(c.importance[i], lane);
    w = hn::Add(w, importance);
    wx = hn::Add(wx, hn::Mul(importance, load(c.x[i], lane)));
  }
  const V inverse = reciprocal(range.scale);
  ScaleAndMin best = range;
  V best_gain = number(-3.0e38f);
  for (int k = 0; k < kStarts; ++k) {
    V now = hn::Mul(inverse, number((14.0f + 0.095f * static_cast<float>(k)) / 15.0f)), min = range.min;
    V last_gain = number(-3.0e38f);
    M active = hn::Eq(last_gain, last_gain);
    for (int pass = 0; pass < kPasses; ++pass) {
      const Sums s = sums_at<true>(c, lane, now, now, min, levels_of<AffineSubs>());
      const AffineSolution found = solved(s, w, wx);
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

// Real scales and mins of all sub-blocks.
template <class T>
HWY_INLINE void fit_subs(const Columns& c, size_t lane, Search search, SuperFit& real) {
  for (int j = 0; j < T::kSubs; ++j) {
    const Columns sub = c.part(j * T::kColumns, T::kColumns);
    if constexpr (T::kMins) {
      ScaleAndMin fit = range_affine(sub, lane);
      if (search == Search::error) fit = search_affine(sub, lane, fit);
      store(fit.scale, real.scale[j], lane);
      store(fit.min, real.min[j], lane);
    } else {
      const V extreme = range_of(sub, lane).extreme;
      V scale = hn::Div(extreme, lowest_level<T>());
      const V start = quotient(hn::Neg(lowest_level<T>()), hn::Abs(extreme));
      if (search == Search::error) scale = search_scale(sub, lane, start, true, levels_of<T>(), kBlock64Levels);
      store(scale, real.scale[j], lane);
    }
  }
}

// ---- integers under super-scales

// The real number of largest magnitude among the sub-blocks' scales or mins, with its sign.
template <class T>
HWY_INLINE V extreme_of(const Lanes* real, size_t lane) {
  V extreme = load(real[0], lane);
  for (int j = 1; j < T::kSubs; ++j) {
    const V x = load(real[j], lane);
    extreme = hn::IfThenElse(hn::Gt(hn::Abs(x), hn::Abs(extreme)), x, extreme);
  }
  return extreme;
}

HWY_INLINE V integer_near(V real, V inverse, float move, float lowest, float highest) {
  return clamp(hn::Add(hn::Round(hn::Mul(real, inverse)), number(move)), number(lowest), number(highest));
}

// Weighted errors of the nearest codes of a sub-block under three scales and one min, in one pass.
struct Three {
  V a, b, c;
};
template <class T>
HWY_INLINE Three errors_of(const Columns& c, size_t lane, const Three& scale, V min) {
  const Three inverse{reciprocal(scale.a), reciprocal(scale.b), reciprocal(scale.c)};
  const V lowest = lowest_level<T>(), highest = highest_level<T>();
  Three error{hn::Zero(F()), hn::Zero(F()), hn::Zero(F())};
  for (int i = 0; i < T::kColumns; ++i) {
    V x = load(c.x[i], lane);
    const V w = load(c.importance[i], lane);
    if constexpr (T::kMins) x = hn::Add(x, min);
    const V miss_a = hn::Sub(x, hn::Mul(scale.a, hn::Round(clamp(hn::Mul(x, inverse.a), lowest, highest))));
    const V miss_b = hn::Sub(x, hn::Mul(scale.b, hn::Round(clamp(hn::Mul(x, inverse.b), lowest, highest))));
    const V miss_c = hn::Sub(x, hn::Mul(scale.c, hn::Round(clamp(hn::Mul(x, inverse.c), lowest, highest))));
    error.a = hn::Add(error.a, hn::Mul(w, hn::Mul(miss_a, miss_a)));
    error.b = hn::Add(error.b, hn::Mul(w, hn::Mul(miss_b, miss_b)));
    error.c = hn::Add(error.c, hn::Mul(w, hn::Mul(miss_c, miss_c)));
  }
  return error;
}

// The integers of least error seen so far.
struct Choice {
  V error, scale, min;
};
HWY_INLINE void offer(Choice& best, V error, V scale, V min) {
  const M better = hn::Lt(error, best.error);
  best.error = hn::IfThenElse(better, error, best.error);
  best.scale = hn::IfThenElse(better, scale, best.scale);
  best.min = hn::IfThenElse(better, min, best.min);
}

// Chooses all integers of trial under trial.d and trial.dmin: of each sub-block those within 1 of its real scale and
// min with the least error. Returns the error of the super-block.
template <class T>
HWY_INLINE V choose_integers(const Columns& c, size_t lane, const SuperFit& real, SuperFit& trial) {
  const V d = load(trial.d, lane), inverse_d = reciprocal(d);
  const V dmin = load(trial.dmin, lane), inverse_dmin = reciprocal(dmin);
  V total = hn::Zero(F());
  for (int j = 0; j < T::kSubs; ++j) {
    const Columns sub = c.part(j * T::kColumns, T::kColumns);
    const V real_scale = load(real.scale[j], lane);
    Three scale;
    scale.a = integer_near(real_scale, inverse_d, 0, T::kLowestScale, T::kHighestScale);
    scale.b = integer_near(real_scale, inverse_d, -1, T::kLowestScale, T::kHighestScale);
    scale.c = integer_near(real_scale, inverse_d, 1, T::kLowestScale, T::kHighestScale);
    const Three step{hn::Mul(d, scale.a), hn::Mul(d, scale.b), hn::Mul(d, scale.c)};
    Choice best{number(3.0e38f), scale.a, hn::Zero(F())};
    for (int move = T::kMins ? -1 : 0; move <= (T::kMins ? 1 : 0); ++move) {
      V min = hn::Zero(F());
      if constexpr (T::kMins)
        min = integer_near(load(real.min[j], lane), inverse_dmin, static_cast<float>(move), 0, T::kHighestScale);
      const Three error = errors_of<T>(sub, lane, step, hn::Mul(dmin, min));
      offer(best, error.a, scale.a, min);
      offer(best, error.b, scale.b, min);
      offer(best, error.c, scale.c, min);
    }
    store(best.scale, trial.scale[j], lane);
    store(best.min, trial.min[j], lane);
    total = hn::Add(total, best.error);
  }
  return total;
}

// Plainly rounded integers under d and dmin of the largest real ones: the range fit.
template <class T>
HWY_INLINE void round_integers(size_t lane, const SuperFit& real, SuperFit& out) {
  const float edge = T::kMins ? T::kHighestScale : T::kLowestScale;
  const V d = to_f16(hn::Div(extreme_of<T>(real.scale, lane), number(edge)));
  V dmin = hn::Zero(F());
  if constexpr (T::kMins) dmin = to_f16(hn::Div(extreme_of<T>(real.min, lane), number(T::kHighestScale)));
  store(hn::Add(d, hn::Zero(F())), out.d, lane);
  store(dmin, out.dmin, lane);
  for (int j = 0; j < T::kSubs; ++j) {
    const V scale = load(real.scale[j], lane);
    store(integer_near(scale, reciprocal(d), 0, T::kLowestScale, T::kHighestScale), out.scale[j], lane);
    if constexpr (T::kMins)
      store(integer_near(load(real.min[j], lane), reciprocal(dmin), 0, 0, T::kHighestScale), out.min[j], lane);
  }
}

template <class T>
HWY_INLINE V sub_min(const SuperFit& fit, int j, size_t lane) {
  if constexpr (T::kMins)
    return hn::Mul(load(fit.dmin, lane), load(fit.min[j], lane));
  else
    return hn::Zero(F());
}

template <class T>
HWY_INLINE V error_of(const Columns& c, size_t lane, const SuperFit& fit) {
  V total = hn::Zero(F());
  for (int j = 0; j < T::kSubs; ++j) {
    const V scale = hn::Mul(load(fit.d, lane), load(fit.scale[j], lane));
    total = hn::Add(total, sums_at<T::kMins>(c.part(j * T::kColumns, T::kColumns), lane, scale, reciprocal(scale),
                                             sub_min<T>(fit, j, lane), levels_of<T>())
                               .error);
  }
  return total;
}

template <class T>
HWY_INLINE void adopt(M better, const SuperFit& trial, size_t lane, SuperFit& best) {
  const auto move = [&](const Lanes& from, Lanes& to)
                        HWY_ATTR { store(hn::IfThenElse(better, load(from, lane), load(to, lane)), to, lane); };
  move(trial.d, best.d);
  for (int j = 0; j < T::kSubs; ++j) move(trial.scale[j], best.scale[j]);
  if constexpr (!T::kMins) return;
  move(trial.dmin, best.dmin);
  for (int j = 0; j < T::kSubs; ++j) move(trial.min[j], best.min[j]);
}

// ---- super-scales

// Weighted least squares of d (and dmin ≥ 0) given all integers and the codes nearest under them.
template <class T>
HWY_INLINE void refit(const Columns& c, size_t lane, const SuperFit& fit, SuperFit& out) {
  V aa = hn::Zero(F()), ab = aa, bb = aa, ax = aa, bx = aa;  // products of the two derivatives and the weights
  for (int j = 0; j < T::kSubs; ++j) {
    const Columns sub = c.part(j * T::kColumns, T::kColumns);
    const V integer = load(fit.scale[j], lane), scale = hn::Mul(load(fit.d, lane), integer);
    const Sums s = sums_at<T::kMins>(sub, lane, scale, reciprocal(scale), sub_min<T>(fit, j, lane), levels_of<T>());
    aa = hn::Add(aa, hn::Mul(hn::Mul(integer, integer), s.ll));
    ax = hn::Add(ax, hn::Mul(integer, s.xl));
    if constexpr (T::kMins) {
      V w = hn::Zero(F()), wx = hn::Zero(F());
      for (int i = 0; i < T::kColumns; ++i) {
        const V importance = load(sub.importance[i], lane);
        w = hn::Add(w, importance);
        wx = hn::Add(wx, hn::Mul(importance, load(sub.x[i], lane)));
      }
      const V min = load(fit.min[j], lane);
      ab = hn::Add(ab, hn::Mul(hn::Mul(integer, min), s.l));
      bb = hn::Add(bb, hn::Mul(hn::Mul(min, min), w));
      bx = hn::Add(bx, hn::Mul(min, wx));
    }
  }
  // x = d a - dmin b in the least squares sense; without mins b is 0.
  V d = quotient(ax, aa), dmin = hn::Zero(F());
  if constexpr (T::kMins) {
    const V determinant = hn::Sub(hn::Mul(aa, bb), hn::Mul(ab, ab));
    const V both_d = quotient(hn::Sub(hn::Mul(ax, bb), hn::Mul(ab, bx)), determinant);
    const V both_min = quotient(hn::Sub(hn::Mul(ab, ax), hn::Mul(aa, bx)), determinant);
    const M usable = hn::And(hn::Gt(both_d, hn::Zero(F())), hn::Gt(both_min, hn::Zero(F())));
    d = hn::IfThenElse(usable, both_d, hn::Max(d, hn::Zero(F())));
    dmin = hn::IfThenElse(usable, both_min, hn::Zero(F()));
  }
  store(to_f16(d), out.d, lane);
  store(to_f16(dmin), out.dmin, lane);
}

template <class T>
struct SuperSearch {
  const Columns& c;
  size_t lane;
  const SuperFit& real;
  SuperFit& best;
  V least;
  SuperFit trial;

  HWY_INLINE M try_super(V d, V dmin) {
    store(to_f16(d), trial.d, lane);
    store(to_f16(dmin), trial.dmin, lane);
    return try_integers();
  }
  HWY_INLINE M try_integers() {
    const V error = choose_integers<T>(c, lane, real, trial);
    const M better = hn::Lt(error, least);
    adopt<T>(better, trial, lane, best);
    least = hn::IfThenElse(better, error, least);
    return better;
  }
};

template <class T>
HWY_INLINE void search_super(const Columns& c, size_t lane, const SuperFit& real, SuperFit& best) {
  SuperSearch<T> search{c, lane, real, best, error_of<T>(c, lane, best), {}};
  const V largest = extreme_of<T>(real.scale, lane);
  if constexpr (T::kMins) {
    const V largest_min = extreme_of<T>(real.min, lane);
    for (float scale_slack : T::kScaleSlack)
      for (float min_slack : T::kMinSlack)
        search.try_super(hn::Div(largest, number(T::kHighestScale + scale_slack)),
                         hn::Div(largest_min, number(T::kHighestScale + min_slack)));
  } else {
    for (int a = -T::kStretches; a <= T::kStretches; ++a)
      search.try_super(hn::Div(largest, number(T::kLowestScale * (1 + 0.011f * static_cast<float>(a)))), hn::Zero(F()));
  }
  M active = hn::Eq(largest, largest);
  for (int i = 0; i < kRefits; ++i) {
    refit<T>(c, lane, best, search.trial);
    active = hn::And(active, search.try_integers());
    if (hn::AllFalse(F(), active)) break;
  }
}

template <class T>
HWY_INLINE void fit_super(const Columns& c, Search search, SuperFit& out) {
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    SuperFit real;
    fit_subs<T>(c, lane, Search::range, real);
    round_integers<T>(lane, real, out);
    if (search == Search::range) continue;
    fit_subs<T>(c, lane, Search::error, real);
    search_super<T>(c, lane, real, out);
  }
}

void FitAffineSubs(const Columns& columns, Search search, SuperFit& out) {
  fit_super<AffineSubs>(columns, search, out);
}
void FitSymmetricSubs(const Columns& columns, Search search, SuperFit& out) {
  fit_super<SymmetricSubs>(columns, search, out);
}

}  // namespace pare::lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare::lanes {

HWY_EXPORT(FitAffineSubs);
HWY_EXPORT(FitSymmetricSubs);

void fit_super_affine(const Columns& columns, Search search, SuperFit& out) {
  HWY_DYNAMIC_DISPATCH(FitAffineSubs)(columns, search, out);
}
void fit_super_symmetric(const Columns& columns, Search search, SuperFit& out) {
  HWY_DYNAMIC_DISPATCH(FitSymmetricSubs)(columns, search, out);
}

}  // namespace pare::lanes
#endif
