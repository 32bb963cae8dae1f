// Lattices: the nearest point to a step of columns, and the fit, which measures every candidate scale by the points it
// leads to. All points are tried: the sums of each half of the columns are shared by the points that begin or end
// alike.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/grid/fit_lattice.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "pare/grid/lanes-inl.h"
#include "pare/grid/lattice.h"

HWY_BEFORE_NAMESPACE();
namespace pare::lanes::HWY_NAMESPACE {

constexpr int kMostStep = 8;
constexpr float kShift = 0.125f;

// Sums of weighted squared distances of all ways to fill one half of a point's columns.
struct HalfSums {
  HWY_ALIGN float v[LatticeBook::kMostHalves * kLanes];

  HWY_INLINE V at(int way) const { return hn::Load(F(), v + static_cast<size_t>(way) * kLanes); }

  HWY_INLINE V fill(const LatticeBook& book, const V* x, const V* w) {
    hn::Store(hn::Zero(F()), F(), v);
    int filled = 1;
    for (int j = 0; j < book.dims / 2; ++j, filled *= book.digits)
      for (int digit = book.digits - 1; digit >= 0; --digit) {  // the lowest last: it overwrites what the others add to
        const V miss = hn::Sub(x[j], number(book.magnitude[digit])), error = hn::Mul(w[j], hn::Mul(miss, miss));
        for (int i = 0; i < filled; ++i)
          hn::Store(hn::Add(at(i), error), F(), v + static_cast<size_t>(digit * filled + i) * kLanes);
      }
    V least = at(0);
    for (int i = 1; i < filled; ++i) least = hn::Min(least, at(i));
    return least;
  }
};

// The point with the least weighted distance from `dims` columns: its magnitudes to `value`; returns the distance.
HWY_INLINE V nearest_point(const LatticeBook& book, const V* x, const V* w, V* value) {
  HalfSums lower, upper;
  const V least_lower = lower.fill(book, x, w);
  upper.fill(book, x + book.dims / 2, w + book.dims / 2);
  V best = number(3.0e38f);
  auto point = hn::Zero(I());
  for (int h = 0; h < book.halves; ++h) {
    const V base = upper.at(h);
    if (hn::AllFalse(F(), hn::Lt(hn::Add(base, least_lower), best))) continue;
    for (int p = book.begins[static_cast<size_t>(h)]; p < book.begins[static_cast<size_t>(h) + 1]; ++p) {
      const V error = hn::Add(base, lower.at(book.lower[static_cast<size_t>(p)]));
      const M better = hn::Lt(error, best);
      best = hn::Min(error, best);
      point = hn::IfThenElse(hn::RebindMask(I(), better), hn::Set(I(), p), point);
    }
  }
  const auto first = hn::Mul(point, hn::Set(I(), book.dims));
  for (int j = 0; j < book.dims; ++j)
    value[j] = hn::GatherIndex(F(), book.value.data(), hn::Add(first, hn::Set(I(), j)));
  return best;
}

// A step of columns in units of levels.
struct Step {
  V x[kMostStep], w[kMostStep];
};

// Where the number of minus signs is odd, the column that loses least by it changes its sign.
HWY_INLINE void make_signs_even(const Step& s, int columns, V* magnitude, V* sign) {
  V parity = number(1), least = number(3.0e38f);
  auto cheapest = hn::Zero(I());
  for (int j = 0; j < columns; ++j) {
    parity = hn::Mul(parity, sign[j]);
    const V loss = hn::Mul(s.w[j], hn::Mul(s.x[j], s.x[j]));
    const M less = hn::Lt(loss, least);
    least = hn::IfThenElse(less, loss, least);
    cheapest = hn::IfThenElse(hn::RebindMask(I(), less), hn::Set(I(), j), cheapest);
  }
  const M odd = hn::Lt(parity, hn::Zero(F()));
  for (int j = 0; j < columns; ++j) {
    const M flip = hn::And(odd, hn::RebindMask(F(), hn::Eq(cheapest, hn::Set(I(), j))));
    magnitude[j] = hn::IfThenElse(flip, hn::Neg(magnitude[j]), magnitude[j]);
    sign[j] = hn::IfThenElse(flip, hn::Neg(sign[j]), sign[j]);
  }
}

HWY_INLINE V nearest_signed(const LatticeTraits& t, const LatticeBook& book, const Step& s, V* level) {
  V magnitude[kMostStep], sign[kMostStep];
  for (int j = 0; j < t.step; ++j) {
    magnitude[j] = hn::Abs(s.x[j]);
    sign[j] = hn::CopySign(number(1), s.x[j]);
  }
  if (t.signs == LatticeTraits::Signs::even) make_signs_even(s, t.step, magnitude, sign);
  V error = hn::Zero(F());
  for (int j = 0; j < t.step; j += book.dims)
    error = hn::Add(error, nearest_point(book, magnitude + j, s.w + j, level + j));
  for (int j = 0; j < t.step; ++j) level[j] = hn::Mul(sign[j], level[j]);
  return error;
}

HWY_INLINE V nearest_shifted(const LatticeBook& book, const Step& s, V shift, V* level) {
  V moved[kMostStep];
  for (int j = 0; j < book.dims; ++j) moved[j] = hn::Sub(s.x[j], shift);
  const V error = nearest_point(book, moved, s.w, level);
  for (int j = 0; j < book.dims; ++j) level[j] = hn::Add(level[j], shift);
  return error;
}

// The levels of a step. `shift` is the one to use where that is a parameter of its own.
HWY_INLINE void nearest_levels(const LatticeTraits& t, const LatticeBook& book, const Step& s, V shift, V* level) {
  if (t.signs != LatticeTraits::Signs::shift) {
    nearest_signed(t, book, s, level);
    return;
  }
  if (t.shift_per_run) {
    nearest_shifted(book, s, shift, level);
    return;
  }
  V below[kMostStep];
  const V above_error = nearest_shifted(book, s, number(kShift), level);
  const V below_error = nearest_shifted(book, s, number(-kShift), below);
  const M better = hn::Lt(below_error, above_error);
  for (int j = 0; j < t.step; ++j) level[j] = hn::IfThenElse(better, below[j], level[j]);
}

// ---- rounding

void RoundToLattice(const LineLanes& line, const LatticeTraits& t, const float* importance, const StripPart& part) {
  const LatticeBook& book = t.book();
  const TableLevels levels{t.table()};
  const F f;
  const hn::Rebind<uint8_t, F> bytes;
  alignas(64) uint8_t codes[kMostStep * kLanes];
  for (int64_t first = 0; first < part.columns; first += t.step) {
    for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(f)) {
      const V scale = load(line.scale, lane), inverse = reciprocal(scale);
      float* at = part.values + first * kLanes + lane;
      Step s;
      V level[kMostStep];
      for (int j = 0; j < t.step; ++j) {
        const V x = hn::Mul(hn::LoadU(f, at + j * kLanes), inverse);
        s.x[j] = hn::IfThenElseZero(hn::Eq(x, x), clamp(x, number(-1e6f), number(1e6f)));
        s.w[j] = number(importance ? importance[first + j] : 1.0f);
      }
      nearest_levels(t, book, s, load(line.zero, lane), level);
      for (int j = 0; j < t.step; ++j) {
        hn::StoreU(hn::Sub(hn::Mul(scale, level[j]), hn::Zero(f)), f, at + j * kLanes);
        hn::StoreU(hn::DemoteTo(bytes, levels.find(level[j]).code), bytes, codes + j * kLanes + lane);
      }
    }
    for (int r = 0; r < part.rows; ++r)
      for (int j = 0; j < t.step; ++j) part.codes[r * part.stride + first + j] = codes[j * kLanes + r];
  }
}

// ---- the fit

// What a scale leads to on a sub-block: Σ w l², Σ w x l, the error Σ w (x - scale l)², and the shift that was taken.
struct SubSums {
  V ll, xl, error, shift;
};

HWY_INLINE SubSums sums_under(const LatticeTraits& t, const Columns& c, size_t lane, V scale, V shift) {
  const LatticeBook& book = t.book();
  const V inverse = reciprocal(scale);
  SubSums out{hn::Zero(F()), hn::Zero(F()), hn::Zero(F()), shift};
  for (int64_t first = 0; first < c.count; first += t.step) {
    Step s;
    V level[kMostStep];
    for (int j = 0; j < t.step; ++j) {
      s.x[j] = clamp(hn::Mul(load(c.x[first + j], lane), inverse), number(-1e6f), number(1e6f));
      s.w[j] = load(c.importance[first + j], lane);
    }
    nearest_levels(t, book, s, shift, level);
    for (int j = 0; j < t.step; ++j) {
      const V x = load(c.x[first + j], lane), wl = hn::Mul(s.w[j], level[j]);
      const V miss = hn::Sub(x, hn::Mul(scale, level[j]));
      out.ll = hn::Add(out.ll, hn::Mul(wl, level[j]));
      out.xl = hn::Add(out.xl, hn::Mul(wl, x));
      out.error = hn::Add(out.error, hn::Mul(s.w[j], hn::Mul(miss, miss)));
    }
  }
  return out;
}

HWY_INLINE V choose(M mask, V yes, V no) { return hn::IfThenElse(mask, yes, no); }

// With the better of both shifts where a run has one.
HWY_INLINE SubSums sub_sums(const LatticeTraits& t, const Columns& c, size_t lane, V scale) {
  SubSums best = sums_under(t, c, lane, scale, number(kShift));
  if (!t.shift_per_run) return best;
  const SubSums other = sums_under(t, c, lane, scale, number(-kShift));
  const M better = hn::Lt(other.error, best.error);
  return {choose(better, other.ll, best.ll), choose(better, other.xl, best.xl), choose(better, other.error, best.error),
          choose(better, other.shift, best.shift)};
}

// A sub-block's best real scale, from factors of the one under which the largest weight is the farthest level.
HWY_INLINE V search_sub(const LatticeTraits& t, const Columns& c, size_t lane, V range) {
  const Factors& tries = t.signs == LatticeTraits::Signs::shift ? kLatticeOfThree
                         : t.book().digits == 3                 ? kLatticeOfSix
                                                                : kLatticeOfSixteen;
  V best = range, best_score = hn::Zero(F());
  float factor = tries.first;
  for (int k = 0; k < tries.count; ++k, factor *= tries.ratio) {
    const SubSums s = sub_sums(t, c, lane, hn::Mul(range, number(factor)));
    const V scale = quotient(s.xl, s.ll), score = hn::Mul(scale, s.xl);
    const M better = hn::And(hn::Gt(score, best_score), hn::Gt(scale, hn::Zero(F())));
    best = choose(better, scale, best);
    best_score = choose(better, score, best_score);
  }
  return best;
}

class LatticeSearch {
 public:
  HWY_INLINE LatticeSearch(const LatticeTraits& t, const Columns& c, size_t lane) : t_(t), c_(c), lane_(lane) {
    for (int j = 0; j < t.subs(); ++j) {
      const V extreme = range_of(sub(j), lane).extreme;
      store(hn::Mul(hn::Abs(extreme), number(1 / t.table().highest())), real_[j], lane);
    }
  }

  HWY_INLINE void run(Search search, LatticeFit& out) {
    try_d(largest(), 0);
    best_ = trial_;
    if (search == Search::error) improve();
    store(load(best_.d, lane_), out.d, lane_);
    for (int j = 0; j < t_.subs(); ++j) {
      store(load(best_.scale[j], lane_), out.scale[j], lane_);
      store(load(best_.shift[j], lane_), out.shift[j], lane_);
    }
  }

 private:
  HWY_INLINE Columns sub(int j) const { return c_.part(j * t_.sub, t_.sub); }
  // The super-scale under which the largest sub-scale is the largest integer.
  HWY_INLINE V largest() const {
    V most = load(real_[0], lane_);
    for (int j = 1; j < t_.subs(); ++j) most = hn::Max(most, load(real_[j], lane_));
    return hn::Mul(most, number(1 / t_.multiple(t_.highest_scale)));
  }
  HWY_INLINE V scale_of(V d, V integer) const {
    return hn::Mul(d, hn::Mul(hn::Add(hn::Add(integer, integer), number(1)), number(t_.unit)));
  }

  // trial_: integers near the real scales under d, plus `move`.
  HWY_INLINE void try_d(V real_d, float move) {
    const V d = to_f16(real_d), inverse = reciprocal(d);
    store(d, trial_.d, lane_);
    for (int j = 0; j < t_.subs(); ++j) {
      const V twice = hn::Sub(hn::Mul(hn::Mul(load(real_[j], lane_), inverse), number(1 / t_.unit)), number(1));
      const V near = hn::Add(hn::Round(hn::Mul(twice, number(0.5f))), number(move));
      store(clamp(near, hn::Zero(F()), number(static_cast<float>(t_.highest_scale))), trial_.scale[j], lane_);
      store(number(kShift), trial_.shift[j], lane_);
    }
    measure();
  }
  // The errors of trial_'s sub-blocks, and shifts.
  HWY_INLINE void measure() {
    for (int j = 0; j < t_.subs(); ++j) {
      const SubSums s = sub_sums(t_, sub(j), lane_, scale_of(load(trial_.d, lane_), load(trial_.scale[j], lane_)));
      store(s.shift, trial_.shift[j], lane_);
      store(s.error, trial_.error[j], lane_);
      store(s.ll, trial_.ll[j], lane_);
      store(s.xl, trial_.xl[j], lane_);
    }
  }

  struct State {
    Lanes d, scale[LatticeFit::kMostSubs], shift[LatticeFit::kMostSubs];
    Lanes error[LatticeFit::kMostSubs], ll[LatticeFit::kMostSubs], xl[LatticeFit::kMostSubs];
  };
  HWY_INLINE V total(const State& s) const {
    V sum = hn::Zero(F());
    for (int j = 0; j < t_.subs(); ++j) sum = hn::Add(sum, load(s.error[j], lane_));
    return sum;
  }
  HWY_INLINE void move(M where, const Lanes& from, Lanes& to) const {
    store(choose(where, load(from, lane_), load(to, lane_)), to, lane_);
  }
  HWY_INLINE void adopt(M where, int j) {
    move(where, trial_.scale[j], best_.scale[j]);
    move(where, trial_.shift[j], best_.shift[j]);
    move(where, trial_.error[j], best_.error[j]);
    move(where, trial_.ll[j], best_.ll[j]);
    move(where, trial_.xl[j], best_.xl[j]);
  }
  HWY_INLINE void adopt_if_better() {
    const M better = hn::Lt(total(trial_), total(best_));
    move(better, trial_.d, best_.d);
    for (int j = 0; j < t_.subs(); ++j) adopt(better, j);
  }

  HWY_INLINE void improve() {
    for (int j = 0; j < t_.subs(); ++j) store(search_sub(t_, sub(j), lane_, load(real_[j], lane_)), real_[j], lane_);
    const V d = largest();
    for (const float stretch : kLatticeStretches) {
      try_d(hn::Mul(d, number(stretch)), 0);
      adopt_if_better();
    }
    for (const float step : {-1.0f, 1.0f}) {  // neighbouring integers, each sub-block for itself
      trial_ = best_;
      for (int j = 0; j < t_.subs(); ++j) {
        const V moved = hn::Add(load(best_.scale[j], lane_), number(step));
        store(clamp(moved, hn::Zero(F()), number(static_cast<float>(t_.highest_scale))), trial_.scale[j], lane_);
      }
      measure();
      for (int j = 0; j < t_.subs(); ++j) adopt(hn::Lt(load(trial_.error[j], lane_), load(best_.error[j], lane_)), j);
    }
    refit();
  }
  // Least squares of d, given integers and points.
  HWY_INLINE void refit() {
    V aa = hn::Zero(F()), ax = aa;
    for (int j = 0; j < t_.subs(); ++j) {
      const V multiple = scale_of(number(1), load(best_.scale[j], lane_));
      aa = hn::Add(aa, hn::Mul(hn::Mul(multiple, multiple), load(best_.ll[j], lane_)));
      ax = hn::Add(ax, hn::Mul(multiple, load(best_.xl[j], lane_)));
    }
    trial_ = best_;
    store(to_f16(hn::Max(quotient(ax, aa), hn::Zero(F()))), trial_.d, lane_);
    measure();
    adopt_if_better();
  }

  const LatticeTraits& t_;
  const Columns& c_;
  size_t lane_;
  Lanes real_[LatticeFit::kMostSubs];
  State best_, trial_;
};

void FitLattice(const Columns& c, const LatticeTraits& t, Search search, LatticeFit& out) {
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) LatticeSearch(t, c, lane).run(search, out);
}

}  // namespace pare::lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

namespace pare::lanes {

HWY_EXPORT(RoundToLattice);
HWY_EXPORT(FitLattice);

void round_to_lattice(const LineLanes& line, const LatticeTraits& traits, const float* importance,
                      const StripPart& part) {
  double sum = 0;
  for (int64_t c = 0; importance && c < part.columns; ++c) sum += importance[c];
  const float factor = static_cast<float>(static_cast<double>(part.columns) / sum);
  if (!importance || !std::isnormal(factor))  // as weigh(): columns that all count nothing count alike
    return HWY_DYNAMIC_DISPATCH(RoundToLattice)(line, traits, nullptr, part);
  float relative[32];
  for (int64_t c = 0; c < part.columns; ++c) relative[c] = importance[c] * factor;
  HWY_DYNAMIC_DISPATCH(RoundToLattice)(line, traits, relative, part);
}
void fit_lattice(const Columns& columns, const LatticeTraits& traits, Search search, LatticeFit& out) {
  HWY_DYNAMIC_DISPATCH(FitLattice)(columns, traits, search, out);
}

}  // namespace pare::lanes
#endif
