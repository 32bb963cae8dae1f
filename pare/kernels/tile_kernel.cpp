// Products of tiles with float activations, straight from the codes. Eight tokens share the work of making codes into
// floats, which the processor then does beside the multiplications: as fast as sgemm, and nothing is ever expanded.
#include <algorithm>

#include "pare/base/threads.h"
#include "pare/kernels/kernel.h"
#include "pare/kernels/scratch.h"
#include "pare/kernels/tile_products.h"

namespace pare {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;   // of weights per task, at least
constexpr int64_t kBlockFloats = 4 << 20;  // of arranged activations at a time

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Token `i` of a block of `n`, as TileActivations describes it.
void arrange(const Tiles& tiles, const float* x, int64_t i, int64_t n, float* out, float* sums) {
  const TileLayout& t = tiles.layout;
  const int32_t* order = tiles.order.empty() ? nullptr : tiles.order.data();
  for (int64_t u = 0; u < t.units; ++u) {
    float sum = 0;
    for (int64_t c = u * kUnit; c < (u + 1) * kUnit; ++c) {
      const float activation = c >= t.shape.cols ? 0 : x[order ? order[c] : c];
      sum += activation;
      out[c * n + i] = c % 2 ? activation * 0x1p-8f : activation;
    }
    sums[u * n + i] = sum;
  }
}

void multiply_block(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  const TileLayout& t = tiles.layout;
  const int64_t columns = t.units * kUnit, tokens = x.rows;
  float* arranged = scratch<0>(tokens * (columns + t.units));
  float* sums = arranged + tokens * columns;
  for_tasks(divide_up(tokens, 8), tokens * columns, [&](int64_t task) {
    for (int64_t first = task * 8, n = 0; first < std::min(task * 8 + 8, tokens); first += n) {
      n = TileActivations::block_at(tokens - first);
      for (int64_t i = 0; i < n; ++i)
        arrange(tiles, x.row(first + i), i, n, arranged + first * columns, sums + first * t.units);
    }
  });
  const TileActivations a{tokens, columns, t.units, arranged, sums};
  const int64_t strips = divide_up(kTaskBytes, t.strip_bytes);  // rows are independent: any cut gives the same result
  for_tasks(divide_up(t.strips, strips), t.shape.size() * tokens, [&](int64_t i) {
    multiply_strips(tiles, a, i * strips, std::min((i + 1) * strips, t.strips), y, y_stride);
  });
}

}  // namespace

void multiply_tiles(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  const int64_t block = std::max<int64_t>(8, kBlockFloats / (tiles.layout.units * kUnit) / 8 * 8);
  for (int64_t t = 0; t < x.rows; t += block)
    multiply_block(tiles, x.rows_between(t, std::min(t + block, x.rows)), y + t * y_stride, y_stride);
}

}  // namespace pare
