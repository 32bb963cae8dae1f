// Numbers that windows or rows share, fixed from the whole matrix before the first window is fitted.
#include <algorithm>
#include <cmath>

#include "pare/base/threads.h"
#include "pare/grid/families.h"

namespace pare {
namespace {

// Largest magnitudes of each row's groups, groups x rows.
Plane<float> magnitudes(MatrixView w, int64_t group) {
  Plane<float> out((w.cols + group - 1) / group, w.rows);
  parallel_for(w.rows, [&](int64_t r) {
    for (int64_t c = 0; c < w.cols; ++c) out(c / group, r) = std::max(out(c / group, r), std::fabs(w(r, c)));
  });
  return out;
}

// One scale for blocks of rows, under which the largest weight is the farthest level.
void share_scales(Plane<float>& scale, const Plane<float>& largest, int64_t rows, float reach, ScaleKind kind) {
  const int64_t block = rows > 0 ? rows : scale.cols();
  for (int64_t g = 0; g < scale.rows(); ++g)
    for (int64_t first = 0; first < scale.cols(); first += block) {
      const int64_t last = std::min(first + block, scale.cols());
      float most = 0;
      // All groups of a whole matrix share one scale too.
      for (int64_t other = rows == 0 ? 0 : g; other < (rows == 0 ? scale.rows() : g + 1); ++other)
        for (int64_t r = first; r < last; ++r) most = std::max(most, largest(other, r));
      const float shared = stored_scale(kind, most > 0 ? most / reach : 1);
      std::fill(scale.row(g) + first, scale.row(g) + last, shared > 0 ? shared : kSmallestF16);
    }
}

// bitsandbytes' signed dynamic map, ascending: in each decade from 1e-6 the midpoints of 2^i equal parts of [0.1, 1],
// with both signs, and 0 and 1. Source: formats.md §1.3.
std::vector<float> dynamic_map() {
  std::vector<float> out = {0, 1};
  double decade = 1e-6;
  for (int i = 0; i < 7; ++i, decade = std::pow(10.0, i - 6)) {
    const int points = (1 << i) + 1;
    const float first = 0.1f, last = 1, step = (last - first) / static_cast<float>(points - 1);
    // As the reference's evenly spaced points: from both ends, products and sums rounded once.
    const auto point = [&](int k) {
      return k < points / 2 ? static_cast<float>(static_cast<double>(step) * k + first)
                            : static_cast<float>(last - static_cast<double>(step) * (points - 1 - k));
    };
    for (int k = 0; k + 1 < points; ++k) {
      const float middle = (point(k) + point(k + 1)) / 2, value = static_cast<float>(decade) * middle;
      out.push_back(value);
      out.push_back(-value);
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

void nest_scales(Codebook::Nested& n, const Plane<float>& largest) {
  constexpr int64_t kBlock = Codebook::Nested::kBlock;
  double sum = 0;
  for (const float m : largest.values()) sum += m;
  n.offset = static_cast<float>(sum / static_cast<double>(largest.size()));
  n.codes.assign(static_cast<size_t>(largest.size()), 0);
  n.absmax.assign(static_cast<size_t>((largest.size() + kBlock - 1) / kBlock), 0);
  n.map = dynamic_map();
  for (int64_t r = 0, at = 0; r < largest.cols(); ++r)
    for (int64_t g = 0; g < largest.rows(); ++g, ++at) {
      float& most = n.absmax[static_cast<size_t>(at / kBlock)];
      most = std::max(most, std::fabs(largest(g, r) - n.offset));
    }
}

void prepare_family(Affine& p, MatrixView w) {
  if (p.spec.rows == 1) return;
  const float reach = static_cast<float>((1 << p.spec.bits) - 1) / 2;
  share_scales(p.scale, magnitudes(w, p.spec.group), p.spec.rows, reach, p.spec.scale);
}
void prepare_family(Codebook& p, MatrixView w) {
  const LevelTable& table = level_table(p.spec.levels);
  if (p.spec.rows != 1) {
    share_scales(p.scale, magnitudes(w, p.spec.group), p.spec.rows, table.reach(), p.spec.scale);
  } else if (p.spec.nested) {
    Plane<float> largest = magnitudes(w, p.spec.group);
    for (float& m : largest.values()) m /= table.reach();
    nest_scales(p.nested, largest);
  } else if (p.spec.global) {
    const Plane<float> largest = magnitudes(w, w.cols);
    const float most = *std::max_element(largest.values().begin(), largest.values().end());
    p.divisor = most > 0 ? highest_scale(p.spec.scale) * table.reach() / most : 1;
    if (!std::isfinite(p.divisor)) p.divisor = 1;
  }
}
void prepare_family(Block&, MatrixView) {}
void prepare_family(SuperBlock&, MatrixView) {}
void prepare_family(Lattice&, MatrixView) {}

}  // namespace

void Quantized::prepare(MatrixView w) {
  std::visit([&](auto& p) { prepare_family(p, w); }, params);
}

}  // namespace pare
