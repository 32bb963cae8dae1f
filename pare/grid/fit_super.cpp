// Fits of super-blocks (design/quality.md §3.2): a search per sub-block for its best real scale (and min), then a
// search over the super-scales d (and dmin) in which every candidate's integers are chosen by the exact error of the
// codes they lead to, then least squares for d (and dmin) given all integers and codes.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/grid/fit_super.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "pare/grid/families.h"
#include "pare/grid/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pare::lanes::HWY_NAMESPACE {

// What the steps below ask of a type.
template <bool kHasMins, class AnyLevels>
struct Subs {
  static constexpr bool kMins = kHasMins;
  using Levels = AnyLevels;

  Levels levels;
  float lowest_level, highest_level, lowest_scale, highest_scale;
  int subs;
  int64_t columns;         // of a sub-block
  const Factors& factors;  // for the scales of sub-blocks without mins

  Subs(const SuperBlockTraits& t, const Levels& l, float lowest, float highest, const Factors& f)
      : levels(l),
        lowest_level(lowest),
        highest_level(highest),
        lowest_scale(static_cast<float>(t.lowest_scale)),
        highest_scale(static_cast<float>(t.highest_scale)),
        subs(t.subs()),
        columns(t.sub),
        factors(f) {}
};

// ---- one sub-block's best real scale and min

// Real scales and mins of all sub-blocks.
template <class T>
HWY_INLINE void fit_subs(const T& t, const Columns& c, size_t lane, Search search, SuperFit& real) {
  for (int j = 0; j < t.subs; ++j) {
    const Columns sub = c.part(j * t.columns, t.columns);
    if constexpr (T::kMins) {
      ScaleAndMin fit = range_of_line(sub, lane, t.highest_level, true);
      if (search == Search::error) fit = search_line(sub, lane, fit, t.highest_level, true, kSubStarts);
      store(fit.scale, real.scale[j], lane);
      store(fit.min, real.min[j], lane);
    } else {
      const V extreme = range_of(sub, lane).extreme;
      V scale = hn::Div(extreme, number(t.lowest_level));
      const V start = quotient(hn::Neg(number(t.lowest_level)), hn::Abs(extreme));
      if (search == Search::error) scale = search_scale(sub, lane, start, true, t.levels, t.factors);
      store(scale, real.scale[j], lane);
    }
  }
}

// ---- integers under super-scales

// The real number of largest magnitude among the sub-blocks' scales or mins, with its sign.
template <class T>
HWY_INLINE V extreme_of(const T& t, const Lanes* real, size_t lane) {
  V extreme = load(real[0], lane);
  for (int j = 1; j < t.subs; ++j) {
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
HWY_INLINE Three errors_of(const T& t, const Columns& c, size_t lane, const Three& scale, V min) {
  const Three inverse{reciprocal(scale.a), reciprocal(scale.b), reciprocal(scale.c)};
  Three error{hn::Zero(F()), hn::Zero(F()), hn::Zero(F())};
  for (int i = 0; i < t.columns; ++i) {
    V x = load(c.x[i], lane);
    const V w = load(c.importance[i], lane);
    if constexpr (T::kMins) x = hn::Add(x, min);
    const V miss_a = hn::Sub(x, hn::Mul(scale.a, t.levels.nearest(hn::Mul(x, inverse.a))));
    const V miss_b = hn::Sub(x, hn::Mul(scale.b, t.levels.nearest(hn::Mul(x, inverse.b))));
    const V miss_c = hn::Sub(x, hn::Mul(scale.c, t.levels.nearest(hn::Mul(x, inverse.c))));
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
HWY_INLINE V choose_integers(const T& t, const Columns& c, size_t lane, const SuperFit& real, SuperFit& trial) {
  const V d = load(trial.d, lane), inverse_d = reciprocal(d);
  const V dmin = load(trial.dmin, lane), inverse_dmin = reciprocal(dmin);
  V total = hn::Zero(F());
  for (int j = 0; j < t.subs; ++j) {
    const Columns sub = c.part(j * t.columns, t.columns);
    const V real_scale = load(real.scale[j], lane);
    Three scale;
    scale.a = integer_near(real_scale, inverse_d, 0, t.lowest_scale, t.highest_scale);
    scale.b = integer_near(real_scale, inverse_d, -1, t.lowest_scale, t.highest_scale);
    scale.c = integer_near(real_scale, inverse_d, 1, t.lowest_scale, t.highest_scale);
    const Three step{hn::Mul(d, scale.a), hn::Mul(d, scale.b), hn::Mul(d, scale.c)};
    Choice best{number(3.0e38f), scale.a, hn::Zero(F())};
    for (int move = T::kMins ? -1 : 0; move <= (T::kMins ? 1 : 0); ++move) {
      V min = hn::Zero(F());
      if constexpr (T::kMins)
        min = integer_near(load(real.min[j], lane), inverse_dmin, static_cast<float>(move), 0, t.highest_scale);
      const Three error = errors_of(t, sub, lane, step, hn::Mul(dmin, min));
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
HWY_INLINE void round_integers(const T& t, size_t lane, const SuperFit& real, SuperFit& out) {
  const float edge = T::kMins ? t.highest_scale : t.lowest_scale;
  const V d = to_f16(hn::Div(extreme_of(t, real.scale, lane), number(edge)));
  V dmin = hn::Zero(F());
  if constexpr (T::kMins) dmin = to_f16(hn::Div(extreme_of(t, real.min, lane), number(t.highest_scale)));
  store(hn::Add(d, hn::Zero(F())), out.d, lane);
  store(dmin, out.dmin, lane);
  for (int j = 0; j < t.subs; ++j) {
    const V scale = load(real.scale[j], lane);
    store(integer_near(scale, reciprocal(d), 0, t.lowest_scale, t.highest_scale), out.scale[j], lane);
    if constexpr (T::kMins)
      store(integer_near(load(real.min[j], lane), reciprocal(dmin), 0, 0, t.highest_scale), out.min[j], lane);
  }
}

template <class T>
HWY_INLINE V sub_min(const T&, const SuperFit& fit, int j, size_t lane) {
  if constexpr (T::kMins)
    return hn::Mul(load(fit.dmin, lane), load(fit.min[j], lane));
  else
    return hn::Zero(F());
}

template <class T>
HWY_INLINE V error_of(const T& t, const Columns& c, size_t lane, const SuperFit& fit) {
  V total = hn::Zero(F());
  for (int j = 0; j < t.subs; ++j) {
    const V scale = hn::Mul(load(fit.d, lane), load(fit.scale[j], lane));
    total = hn::Add(total, sums_at<T::kMins>(c.part(j * t.columns, t.columns), lane, scale, reciprocal(scale),
                                             sub_min(t, fit, j, lane), t.levels)
                               .error);
  }
  return total;
}

template <class T>
HWY_INLINE void adopt(const T& t, M better, const SuperFit& trial, size_t lane, SuperFit& best) {
  const auto move = [&](const Lanes& from, Lanes& to)
                        HWY_ATTR { store(hn::IfThenElse(better, load(from, lane), load(to, lane)), to, lane); };
  move(trial.d, best.d);
  for (int j = 0; j < t.subs; ++j) move(trial.scale[j], best.scale[j]);
  if constexpr (!T::kMins) return;
  move(trial.dmin, best.dmin);
  for (int j = 0; j < t.subs; ++j) move(trial.min[j], best.min[j]);
}

// ---- super-scales

// Weighted least squares of d (and dmin ≥ 0) given all integers and the codes nearest under them.
template <class T>
HWY_INLINE void refit(const T& t, const Columns& c, size_t lane, const SuperFit& fit, SuperFit& out) {
  V aa = hn::Zero(F()), ab = aa, bb = aa, ax = aa, bx = aa;  // products of the two derivatives and the weights
  for (int j = 0; j < t.subs; ++j) {
    const Columns sub = c.part(j * t.columns, t.columns);
    const V integer = load(fit.scale[j], lane), scale = hn::Mul(load(fit.d, lane), integer);
    const Sums s = sums_at<T::kMins>(sub, lane, scale, reciprocal(scale), sub_min(t, fit, j, lane), t.levels);
    aa = hn::Add(aa, hn::Mul(hn::Mul(integer, integer), s.ll));
    ax = hn::Add(ax, hn::Mul(integer, s.xl));
    if constexpr (T::kMins) {
      V w = hn::Zero(F()), wx = hn::Zero(F());
      for (int i = 0; i < t.columns; ++i) {
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
  const T& t;
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
    const V error = choose_integers(t, c, lane, real, trial);
    const M better = hn::Lt(error, least);
    adopt(t, better, trial, lane, best);
    least = hn::IfThenElse(better, error, least);
    return better;
  }
};

template <class T>
HWY_INLINE void search_super(const T& t, const Columns& c, size_t lane, const SuperFit& real, SuperFit& best) {
  SuperSearch<T> search{t, c, lane, real, best, error_of(t, c, lane, best), {}};
  const V largest = extreme_of(t, real.scale, lane);
  if constexpr (T::kMins) {
    const V largest_min = extreme_of(t, real.min, lane);
    for (float scale_slack : kScaleSlack)
      for (float min_slack : kMinSlack)
        search.try_super(hn::Div(largest, number(t.highest_scale + scale_slack)),
                         hn::Div(largest_min, number(t.highest_scale + min_slack)));
  } else {
    for (int a = -kStretches; a <= kStretches; ++a)
      search.try_super(hn::Div(largest, number(t.lowest_scale * (1 + 0.011f * static_cast<float>(a)))), hn::Zero(F()));
  }
  M active = hn::Eq(largest, largest);
  for (int i = 0; i < kRefits; ++i) {
    refit(t, c, lane, best, search.trial);
    active = hn::And(active, search.try_integers());
    if (hn::AllFalse(F(), active)) break;
  }
}

template <class T>
HWY_INLINE void fit_super(const T& t, const Columns& c, Search search, SuperFit& out) {
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    SuperFit real;
    fit_subs(t, c, lane, Search::range, real);
    round_integers(t, lane, real, out);
    if (search == Search::range) continue;
    fit_subs(t, c, lane, Search::error, real);
    search_super(t, c, lane, real, out);
  }
}

void FitSuper(const Columns& columns, const SuperBlockTraits& t, Search search, SuperFit& out) {
  const auto lowest = static_cast<float>(-t.middle), highest = static_cast<float>(t.top - t.middle);
  if (t.table) {
    const Subs<false, TableLevels> subs(t, {*t.table}, t.table->lowest(), t.table->highest(), kTableLevels);
    return fit_super(subs, columns, search, out);
  }
  const EvenLevels levels{number(lowest), number(highest)};
  const Factors& factors = factors_of_levels(t.top + 1);
  if (t.mins)
    fit_super(Subs<true, EvenLevels>(t, levels, lowest, highest, factors), columns, search, out);
  else
    fit_super(Subs<false, EvenLevels>(t, levels, lowest, highest, factors), columns, search, out);
}

}  // namespace pare::lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare::lanes {

HWY_EXPORT(FitSuper);

void fit_super(const Columns& columns, const SuperBlockTraits& traits, Search search, SuperFit& out) {
  HWY_DYNAMIC_DISPATCH(FitSuper)(columns, traits, search, out);
}

}  // namespace pare::lanes
#endif
