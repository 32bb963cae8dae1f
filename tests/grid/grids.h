// Matrices and grids that the tests of this folder share.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "pare/grid/line.h"

namespace pare::test {

inline std::vector<Grid> all_grids() {
  std::vector<Grid> grids;
  for (int bits = 2; bits <= 8; ++bits)
    for (bool symmetric : {true, false}) grids.push_back(AffineSpec{bits, 32 << (bits % 3), symmetric, 0});
  grids.push_back(AffineSpec{4, 64, false, 1});
  grids.push_back(AffineSpec{3, 0, true, 0});
  grids.push_back(AffineSpec{4, 0, false, 1});
  grids.push_back({AffineSpec{.bits = 4, .group = 64, .biased = true}});
  grids.push_back({AffineSpec{.bits = 3, .group = 32, .scale = ScaleKind::bf16, .biased = true}});
  grids.push_back({AffineSpec{.bits = 4, .group = 64, .scale = ScaleKind::f32}});
  grids.push_back({AffineSpec{.bits = 5, .group = 32, .symmetric = false, .scale = ScaleKind::bf16}});
  for (const Grid& grid : named_grids()) grids.push_back(grid);
  return grids;
}

inline std::vector<Grid> grids_of_step(bool one) {
  std::vector<Grid> grids;
  for (const Grid& grid : all_grids())
    if ((step_of(grid) == 1) == one) grids.push_back(grid);
  return grids;
}

struct GridLabel {
  template <class Info>
  std::string operator()(const Info& of) const {
    std::string label = name_of(of.param) + "_" + std::to_string(of.index);
    std::replace(label.begin(), label.end(), '-', '_');
    return label;
  }
};
inline constexpr GridLabel grid_label;

// Gaussian rows of different widths and centres with a few outliers, as trained weights have.
inline Matrix random_weights(int64_t rows, int64_t cols, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix w(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    const float width = 0.03f * std::exp(0.6f * normal(random)), centre = r % 5 == 4 ? 1.5f * width : 0;
    for (int64_t c = 0; c < cols; ++c) w(r, c) = centre + width * normal(random) * (random() % 300 == 0 ? 6.0f : 1.0f);
  }
  return w;
}

inline std::vector<float> random_importance(int64_t cols, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(cols));
  for (float& x : out) x = std::exp(1.5f * normal(random));
  return out;
}

inline int levels_of(const Grid& grid) { return codes_of(grid); }

inline void fit_all(Quantized& q, MatrixView w, const FitHow& how) {
  for (int64_t i = 0; i < q.windows(); ++i) q.fit(i, w, how);
}

// Rounds every window through strips and returns the strips' values put together.
inline Matrix round_all(Quantized& q, MatrixView w, std::span<const float> importance = {}) {
  Matrix out(w.rows, w.cols);
  std::vector<float> lanes(static_cast<size_t>(q.window() * kLanes));
  for (int64_t row = 0; row < w.rows; row += kLanes)
    for (int64_t first = 0; first < w.cols; first += q.window()) {
      const int rows = static_cast<int>(std::min<int64_t>(kLanes, w.rows - row));
      Strip strip{lanes.data(), row, rows, first, first + q.window()};
      if (!importance.empty()) strip.importance = importance.data() + first;
      load_strip(w, strip);
      q.round(strip);
      store_strip(strip, out.data(), out.cols());
    }
  return out;
}

inline Quantized quantized(const Grid& grid, MatrixView w, const FitHow& how) {
  Quantized q(grid, w.shape());
  fit_all(q, w, how);
  round_all(q, w, how.importance);
  return q;
}

inline double squared_error(MatrixView w, MatrixView v, std::span<const float> importance = {}) {
  double sum = 0;
  for (int64_t r = 0; r < w.rows; ++r)
    for (int64_t c = 0; c < w.cols; ++c) {
      const double miss = double{w(r, c)} - double{v(r, c)};
      sum += (importance.empty() ? 1.0 : double{importance[static_cast<size_t>(c)]}) * miss * miss;
    }
  return sum;
}

}  // namespace pare::test
