// Which fit each family takes, and where the numbers it finds are stored.
#include <algorithm>
#include <vector>

#include "pare/grid/families.h"

namespace pare {
namespace {

void fit_rows(Affine& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  if (p.spec.rows != 1) return;  // prepare() has
  lanes::ScaleFit fit;
  lanes::fit_affine(c, p.spec, search, fit);
  for (int r = 0; r < rows; ++r) {
    p.scale(window, row + r) = fit.scale.v[r];
    if (p.spec.biased)
      p.bias(window, row + r) = fit.zero.v[r];
    else
      p.zero(window, row + r) = static_cast<uint8_t>(fit.zero.v[r]);
  }
}
void fit_rows(Block& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  const BlockTraits& t = traits(p.spec);
  lanes::BlockFit fit;
  lanes::fit_block(c, t, search, fit);
  std::copy_n(fit.scale.v, rows, p.scale.row(window) + row);
  if (t.mins) std::copy_n(fit.min.v, rows, p.min.row(window) + row);
}
void fit_rows(SuperBlock& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  const SuperBlockTraits& t = traits(p.spec);
  lanes::SuperFit fit;
  lanes::fit_super(c, t, search, fit);
  std::copy_n(fit.d.v, rows, p.d.row(window) + row);
  const int64_t subs = t.subs();
  for (int64_t j = 0; j < subs; ++j)
    for (int r = 0; r < rows; ++r) p.scale(window * subs + j, row + r) = static_cast<int8_t>(fit.scale[j].v[r]);
  if (!t.mins) return;
  std::copy_n(fit.dmin.v, rows, p.dmin.row(window) + row);
  for (int64_t j = 0; j < subs; ++j)
    for (int r = 0; r < rows; ++r) p.min(window * subs + j, row + r) = static_cast<uint8_t>(fit.min[j].v[r]);
}
// Stores the code of a scale; returns what it stands for.
float nest(Codebook& p, int64_t window, int64_t row, float scale) {
  Codebook::Nested& n = p.nested;
  const auto at = static_cast<size_t>(row * p.scale.rows() + window), block = at / Codebook::Nested::kBlock;
  const float absmax = n.absmax[block], wanted = absmax == 0 ? 0 : (scale - n.offset) / absmax;
  const auto above = std::lower_bound(n.map.begin(), n.map.end(), wanted);
  auto best = above == n.map.end() ? above - 1 : above;
  if (best != n.map.begin() && wanted - *(best - 1) <= *best - wanted) --best;
  n.codes[at] = static_cast<uint8_t>(best - n.map.begin());
  return *best * absmax + n.offset;
}

void fit_rows(Codebook& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  if (p.spec.rows != 1) return;  // prepare() has
  lanes::Lanes scale;
  const LevelTable& table = level_table(p.spec.levels);
  if (p.spec.global) {
    // Stored scales are those of the weights times the divisor.
    std::vector<lanes::Lanes> scaled(static_cast<size_t>(c.count));
    for (int64_t i = 0; i < c.count; ++i)
      for (int r = 0; r < kLanes; ++r) scaled[static_cast<size_t>(i)].v[r] = c.x[i].v[r] * p.divisor;
    lanes::fit_table({scaled.data(), c.importance, c.count}, table, p.spec.scale, search, scale);
    for (int r = 0; r < rows; ++r) p.scale(window, row + r) = scale.v[r] / p.divisor;
    return;
  }
  lanes::fit_table(c, table, p.spec.scale, search, scale);
  if (p.spec.nested)
    for (int r = 0; r < rows; ++r) scale.v[r] = nest(p, window, row + r, scale.v[r]);
  std::copy_n(scale.v, rows, p.scale.row(window) + row);
}

void fit_rows(Lattice& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  const LatticeTraits& t = traits(p.spec);
  lanes::LatticeFit fit;
  lanes::fit_lattice(c, t, search, fit);
  std::copy_n(fit.d.v, rows, p.d.row(window) + row);
  for (int j = 0; j < t.subs(); ++j)
    for (int r = 0; r < rows; ++r) {
      p.scale(window * t.subs() + j, row + r) = static_cast<uint8_t>(fit.scale[j].v[r]);
      if (t.shift_per_run) p.shift(window * t.subs() + j, row + r) = fit.shift[j].v[r] > 0;
    }
}

}  // namespace

void fit_params(Params& params, int64_t window, const Strip& strip, const lanes::Columns& c, Search search) {
  std::visit([&](auto& p) { fit_rows(p, window, strip.first_row, strip.rows, c, search); }, params);
}

}  // namespace pare
