// The last row of both tables: plain C++ that takes everything. What every other kernel must equal.
#include <algorithm>

#include "pare/kernels/kernel.h"
#include "pare/kernels/scratch.h"

namespace pare {
void multiply_floats_plain(const FloatRows& w, MatrixView x, float* y, int64_t y_stride) {
  for_tasks(w.shape.rows, w.shape.size() * x.rows, [&](int64_t r) {
    float* row = scratch<1>(x.cols);
    to_f32(w.type, {w.row(r), static_cast<size_t>(w.row_bytes())}, {row, static_cast<size_t>(x.cols)});
    for (int64_t t = 0; t < x.rows; ++t) {
      float sum = 0;
      for (int64_t c = 0; c < x.cols; ++c) sum += x(t, c) * row[c];
      y[t * y_stride + r] = sum;
    }
  });
}

void expand_tiles_plain(const Tiles& tiles, int64_t strip, int64_t first, int64_t last, float* out, int64_t stride) {
  float values[kUnit * kLanes];
  for (int64_t u = first; u < last; ++u) {
    plain_unit(tiles, strip, u, values);
    for (int64_t c = 0; c < kUnit; ++c)
      std::copy_n(values + c * kLanes, kLanes, out + ((u - first) * kUnit + c) * stride);
  }
}

void multiply_tiles_plain(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  const TileLayout& t = tiles.layout;
  const auto original = [&](int64_t c) { return tiles.order.empty() ? c : tiles.order[static_cast<size_t>(c)]; };
  for_tasks(t.strips, t.shape.size() * x.rows, [&](int64_t s) {
    float* values = scratch<1>(t.units * kUnit * kLanes);
    expand_tiles_plain(tiles, s, 0, t.units, values, kLanes);
    const int64_t rows = std::min<int64_t>(kLanes, t.shape.rows - s * kLanes);
    for (int64_t token = 0; token < x.rows; ++token) {
      float sum[kLanes] = {};
      for (int64_t c = 0; c < t.shape.cols; ++c) {
        const float activation = x(token, original(c));
        for (int64_t lane = 0; lane < kLanes; ++lane) sum[lane] += activation * values[c * kLanes + lane];
      }
      std::copy_n(sum, rows, y + token * y_stride + s * kLanes);
    }
  });
}

}  // namespace pare
