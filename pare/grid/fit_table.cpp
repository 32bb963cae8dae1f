// The fit of grids whose levels stand in a table. A real scale is searched for as on any grid; where scales are stored
// coarsely, the stored ones around the range's are tried as well, because the nearest need not be the best.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/grid/fit_table.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "pare/grid/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pare::lanes::HWY_NAMESPACE {

// As stored_scale of levels.h.
HWY_INLINE V to_power_of_two(V x) {
  const U u;
  const auto carried = hn::Add(hn::BitCast(u, x), hn::Set(u, 0x400000));
  const V power = hn::BitCast(F(), hn::And(carried, hn::Set(u, 0x7F800000)));
  return hn::IfThenElse(hn::Lt(x, number(0x1.8p-127f)), number(0x1p-127f), power);
}
HWY_INLINE V to_e4m3(V x) {
  const U u;
  const V inside = clamp(x, hn::Zero(F()), number(448));
  const auto bits = hn::BitCast(u, inside), odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(u, 1));
  const auto carried = hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7FFFF)));
  const V normal = hn::BitCast(F(), hn::And(carried, hn::Set(u, 0xFFF00000)));
  const V subnormal = hn::Mul(hn::Round(hn::Mul(inside, number(512))), number(0x1p-9f));
  return hn::IfThenElse(hn::Lt(inside, number(0x1p-6f)), subnormal, normal);
}
HWY_INLINE V to_stored(ScaleKind kind, V x) {
  switch (kind) {
    case ScaleKind::f16:
      return to_f16(x);
    case ScaleKind::f32:
    case ScaleKind::bf16:
      return to_float(kind, x);
    case ScaleKind::e8m0:
      return to_power_of_two(x);
    case ScaleKind::ue4m3:
      break;
  }
  return to_e4m3(x);
}

// The scale under which the largest weight is the farthest level, and none is beyond.
HWY_INLINE V range_scale(const Range& range, const LevelTable& table, ScaleKind kind) {
  if (-table.lowest() > table.highest()) return to_stored(kind, hn::Div(range.extreme, number(table.lowest())));
  const V exact = hn::Div(hn::Abs(range.extreme), number(table.highest()));
  // Powers of two: the next one up, 1.5 being the last that would be rounded down.
  return to_stored(kind, kind == ScaleKind::e8m0 ? hn::Mul(exact, number(0x1.7FFFFEp0f)) : exact);
}

HWY_INLINE V search_table(const Columns& c, size_t lane, const Range& range, V first, const LevelTable& table,
                          ScaleKind kind) {
  const TableLevels levels{table};
  const V magnitude = hn::Abs(range.extreme), start = quotient(number(table.reach()), magnitude);
  V best = first, least = error_at(c, lane, first, levels);
  const auto offer = [&](V scale) HWY_ATTR {
    const V error = error_at(c, lane, scale, levels);
    const M better = hn::Lt(error, least);
    best = hn::IfThenElse(better, scale, best);
    least = hn::IfThenElse(better, error, least);
  };
  const bool either_sign = !table.symmetric() && lowest_scale(kind) < 0;
  offer(to_stored(kind, search_scale(c, lane, start, either_sign, levels, kTableLevels)));
  const Factors& tries = kind == ScaleKind::e8m0 ? kStoredPowers : kStoredE4M3;
  if (kind == ScaleKind::e8m0 || kind == ScaleKind::ue4m3) {
    float factor = tries.first / table.reach();
    for (int k = 0; k < tries.count; ++k, factor *= tries.ratio)
      offer(to_stored(kind, hn::Mul(magnitude, number(factor))));
  }
  return best;
}

void FitTable(const Columns& c, const LevelTable& table, ScaleKind kind, Search search, Lanes& out) {
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    const Range range = range_of(c, lane);
    V scale = range_scale(range, table, kind);
    if (search == Search::error) scale = search_table(c, lane, range, scale, table, kind);
    store(hn::Add(scale, hn::Zero(F())), out, lane);  // groups of zeros: +0
  }
}

}  // namespace pare::lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare::lanes {

HWY_EXPORT(FitTable);

void fit_table(const Columns& columns, const LevelTable& table, ScaleKind kind, Search search, Lanes& scale) {
  HWY_DYNAMIC_DISPATCH(FitTable)(columns, table, kind, search, scale);
}

}  // namespace pare::lanes
#endif
