// Products of tiles with float activations. A few tokens multiply codes, at the speed of memory; more multiply values
// of 256 columns of one strip at a time, at the speed of sgemm or above. Nothing larger is ever expanded.
#include <algorithm>

#include "pare/kernels/kernel.h"
#include "pare/kernels/scratch.h"
#include "pare/kernels/tile_products.h"

namespace pare {
namespace {

constexpr int64_t kFewTokens = 4;
constexpr int64_t kBlockTokens = 256;     // 256 columns of them are a quarter of L2
constexpr int64_t kTaskBytes = 64 << 10;  // of weights per task, at least

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls place(c, activation) for every column of the tiles.
template <class Place>
void in_order(const Tiles& tiles, const float* x, const Place& place) {
  const int64_t cols = tiles.layout.shape.cols;
  if (tiles.order.empty())
    for (int64_t c = 0; c < cols; ++c) place(c, x[c]);
  else
    for (int64_t c = 0; c < cols; ++c) place(c, x[tiles.order[static_cast<size_t>(c)]]);
  for (int64_t c = cols; c < tiles.layout.units * kUnit; ++c) place(c, 0.0f);
}

// Multiplies on as many threads as are worth it. Rows are independent: any cut gives the same result.
template <class Multiply>
void for_strips(const TileLayout& t, int64_t tokens, const Multiply& multiply) {
  const int64_t strips = divide_up(kTaskBytes, t.strip_bytes);
  for_tasks(divide_up(t.strips, strips), t.shape.size() * tokens,
            [&](int64_t i) { multiply(i * strips, std::min((i + 1) * strips, t.strips)); });
}

void multiply_few(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  const TileLayout& t = tiles.layout;
  const int64_t columns = t.units * kUnit, tokens = x.rows;
  float* arranged = scratch<0>(tokens * (columns + t.units));
  float* sums = arranged + tokens * columns;
  std::fill_n(sums, tokens * t.units, 0.0f);
  for (int64_t first = 0, n = 0; first < tokens; first += n) {
    n = TileActivations::block_at(tokens - first, TileActivations::kMostCodes);
    float *block = arranged + first * columns, *block_sums = sums + first * t.units;
    for (int64_t i = 0; i < n; ++i)
      in_order(tiles, x.row(first + i), [&](int64_t c, float activation) {
        block[c * n + i] = c % 2 ? activation * 0x1p-8f : activation;
        block_sums[c / kUnit * n + i] += activation;
      });
  }
  const TileActivations a{tokens, columns, t.units, arranged, sums};
  for_strips(t, tokens, [&](int64_t first, int64_t last) { multiply_codes(tiles, a, first, last, y, y_stride); });
}

void multiply_block(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  const TileLayout& t = tiles.layout;
  const int64_t columns = t.units * kUnit, tokens = x.rows;
  float* arranged = scratch<0>(tokens * columns);
  for_tasks(divide_up(tokens, 8), tokens * columns, [&](int64_t task) {
    for (int64_t first = task * 8, n = 0; first < std::min(task * 8 + 8, tokens); first += n) {
      n = TileActivations::block_at(tokens - first, TileActivations::kMostValues);
      float* block = arranged + first * columns;
      for (int64_t i = 0; i < n; ++i)
        in_order(tiles, x.row(first + i), [&](int64_t c, float activation) { block[c * n + i] = activation; });
    }
  });
  const TileActivations a{tokens, columns, t.units, arranged, nullptr};
  for_strips(t, tokens, [&](int64_t first, int64_t last) { multiply_values(tiles, a, first, last, y, y_stride); });
}

}  // namespace

void multiply_tiles(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  if (x.rows <= kFewTokens) return multiply_few(tiles, x, y, y_stride);
  for (int64_t t = 0; t < x.rows; t += kBlockTokens)
    multiply_block(tiles, x.rows_between(t, std::min(t + kBlockTokens, x.rows)), y + t * y_stride, y_stride);
}

}  // namespace pare
