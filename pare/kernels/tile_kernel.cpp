// Products of tiles with float activations: a few tokens straight from the codes, at the speed of memory; many tokens
// by panels of rows that are expanded to floats in cache and multiplied by BLAS with all tokens of a block.
#include <cblas.h>

#include <algorithm>
#include <vector>

#include "pare/base/threads.h"
#include "pare/kernels/kernel.h"
#include "pare/kernels/scratch.h"
#include "pare/kernels/tile_products.h"

namespace pare {
namespace {

constexpr int64_t kFewTokens = 16;        // up to here the codes are multiplied directly
constexpr int64_t kTaskBytes = 64 << 10;  // of weights per task, at least
constexpr int64_t kPanelRows = 128, kPanelCols = 1024, kBlockTokens = 512;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int to_int(int64_t x) { return static_cast<int>(x); }

void arrange(const Tiles& tiles, const float* x, float* out, float* sums) {
  const TileLayout& t = tiles.layout;
  const int64_t padded = t.units * kUnit;
  if (tiles.order.empty())
    std::copy_n(x, t.shape.cols, out);
  else
    for (int64_t c = 0; c < t.shape.cols; ++c) out[c] = x[tiles.order[static_cast<size_t>(c)]];
  std::fill(out + t.shape.cols, out + padded, 0.0f);
  for (int64_t u = 0; u < t.units; ++u) {
    float* unit = out + u * kUnit;
    float sum = 0;
    for (int64_t c = 0; c < kUnit; ++c) sum += unit[c];
    sums[u] = sum;
    for (int64_t c = 1; c < kUnit; c += 2) unit[c] *= 0x1p-8f;
  }
}

void multiply_few(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  const TileLayout& t = tiles.layout;
  const int64_t padded = t.units * kUnit;
  float* arranged = scratch<0>(x.rows * (padded + t.units));
  float* sums = arranged + x.rows * padded;
  for (int64_t i = 0; i < x.rows; ++i) arrange(tiles, x.row(i), arranged + i * padded, sums + i * t.units);
  const TileActivations a{x.rows, arranged, padded, sums, t.units};
  if (t.shape.size() * x.rows < kWorthThreads) return multiply_strips(tiles, a, 0, t.strips, y, y_stride);
  const int64_t task = divide_up(kTaskBytes, t.strip_bytes);  // rows are independent: any cut gives the same result
  parallel_for(divide_up(t.strips, task), [&](int64_t i) {
    multiply_strips(tiles, a, i * task, std::min((i + 1) * task, t.strips), y, y_stride);
  });
}

// One panel of rows with one block of tokens, 1024 columns after another.
void multiply_panel(const Tiles& tiles, MatrixView x, int64_t first_row, float* y, int64_t y_stride) {
  const TileLayout& t = tiles.layout;
  const int64_t rows = std::min(kPanelRows, t.shape.rows - first_row), strips = divide_up(rows, kLanes);
  float* panel = scratch<1>(kPanelRows * kPanelCols);
  for (int64_t c = 0; c < t.shape.cols; c += kPanelCols) {
    const int64_t cols = std::min(kPanelCols, t.shape.cols - c);
    for (int64_t s = 0; s < strips; ++s)
      expand_tiles(tiles, first_row / kLanes + s, c / kUnit, divide_up(c + cols, kUnit), panel + s * kLanes,
                   kPanelRows);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_int(x.rows), to_int(rows), to_int(cols), 1.0f, x.data + c,
                to_int(x.stride), panel, to_int(kPanelRows), c == 0 ? 0.0f : 1.0f, y + first_row, to_int(y_stride));
  }
}

void multiply_many(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  const int64_t panels = divide_up(tiles.layout.shape.rows, kPanelRows), blocks = divide_up(x.rows, kBlockTokens);
  parallel_for(panels * blocks, [&](int64_t i) {
    const int64_t panel = i / blocks, first = i % blocks * kBlockTokens, last = std::min(first + kBlockTokens, x.rows);
    multiply_panel(tiles, x.rows_between(first, last), panel * kPanelRows, y + first * y_stride, y_stride);
  });
}

// Activations in the order of the tiles' columns, a block of tokens at a time.
void multiply_ordered(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  for (int64_t first = 0; first < x.rows; first += kBlockTokens) {
    const MatrixView block = x.rows_between(first, std::min(first + kBlockTokens, x.rows));
    float* ordered = scratch<0>(block.rows * x.cols);
    parallel_for(block.rows, [&](int64_t r) {
      for (int64_t c = 0; c < x.cols; ++c) ordered[r * x.cols + c] = block(r, tiles.order[static_cast<size_t>(c)]);
    });
    multiply_many(tiles, {ordered, block.rows, x.cols, x.cols}, y + first * y_stride, y_stride);
  }
}

}  // namespace

void multiply_tiles(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride) {
  if (x.rows <= kFewTokens) return multiply_few(tiles, x, y, y_stride);
  if (!tiles.order.empty()) return multiply_ordered(tiles, x, y, y_stride);
  multiply_many(tiles, x, y, y_stride);
}

}  // namespace pare
