#include "pare/tensor/linalg.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "pare/tensor/tiles.h"

namespace pare {
namespace {

constexpr int64_t kGramTile = 512;
constexpr int64_t kVectorRows = 8;  // up to so many rows, vector products are faster than packing the matrix

// One tile of a result is one BLAS call. BLAS packs its operands once per call, so large tiles are faster (512 x 1024
// reaches 94 % of the speed of one threaded call for everything, 256 x 256 79 %), but there must be some for each of
// many threads: where rows are few, threads share the columns.
struct Tiles {
  int64_t rows, cols, tile_rows, tile_cols;
  Tiles(int64_t r, int64_t c)
      : rows(r),
        cols(c),
        tile_rows(r >= 2048 ? 512 : 256),
        tile_cols(r <= 16    ? 64
                  : r <= 256 ? 256
                             : 1024) {}

  template <class Body>  // body(first row, rows, first column, columns)
  void each(Body&& body) const {
    const int64_t across = tiles(cols, tile_cols);
    for_tiles(tiles(rows, tile_rows) * across, [&](int64_t tile) {
      const int64_t r = tile / across * tile_rows, c = tile % across * tile_cols;
      body(r, std::min(tile_rows, rows - r), c, std::min(tile_cols, cols - c));
    });
  }
};

// Written so that it vectorises.
bool row_is_finite(std::span<const float> row) {
  int bad = 0;
  for (const float x : row) bad |= !(std::abs(x) <= std::numeric_limits<float>::max());
  return bad == 0;
}

}  // namespace

std::optional<Position> find_not_finite(MatrixView m) {
  std::atomic<int64_t> first{m.rows};
  parallel_for(m.rows, [&](int64_t r) {
    if (row_is_finite({m.row(r), static_cast<size_t>(m.cols)})) return;
    for (int64_t seen = first; r < seen && !first.compare_exchange_weak(seen, r);) {
    }
  });
  const int64_t r = first;
  if (r == m.rows) return std::nullopt;
  return Position{r, std::find_if(m.row(r), m.row(r) + m.cols, [](float x) { return !std::isfinite(x); }) - m.row(r)};
}

void multiply_transposed(MatrixView x, MatrixView w, float* y, int64_t y_stride, bool accumulate) {
  assert(x.cols == w.cols);
  const float beta = accumulate ? 1.0f : 0.0f;
  Tiles(x.rows, w.rows).each([&](int64_t r, int64_t rows, int64_t c, int64_t cols) {
    if (rows > kVectorRows) {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_int(rows), to_int(cols), to_int(x.cols), 1.0f, x.row(r),
                  to_int(x.stride), w.row(c), to_int(w.stride), beta, y + r * y_stride + c, to_int(y_stride));
      return;
    }
    for (int64_t i = r; i < r + rows; ++i)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, to_int(cols), to_int(x.cols), 1.0f, w.row(c), to_int(w.stride), x.row(i),
                  1, beta, y + i * y_stride + c, 1);
  });
}

void multiply_add(float alpha, MatrixView a, MatrixView b, float* y, int64_t y_stride) {
  assert(a.cols == b.rows);
  if (a.cols == 0) return;
  Tiles(a.rows, b.cols).each([&](int64_t r, int64_t rows, int64_t c, int64_t cols) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_int(rows), to_int(cols), to_int(a.cols), alpha, a.row(r),
                to_int(a.stride), b.data + c, to_int(b.stride), 1.0f, y + r * y_stride + c, to_int(y_stride));
  });
}

void add_gram(MatrixView x, Matrix& h) {
  assert(h.rows() == x.cols && h.cols() == x.cols);
  if (x.rows == 0) return;
  const int n = to_int(h.cols()), count = to_int(x.rows), stride = to_int(x.stride);
  std::vector<std::pair<int64_t, int64_t>> lower;  // tiles
  for (int64_t r = 0; r < n; r += kGramTile)
    for (int64_t c = 0; c <= r; c += kGramTile) lower.emplace_back(r, c);
  for_tiles(std::ssize(lower), [&](int64_t tile) {
    const auto [r, c] = lower[static_cast<size_t>(tile)];
    const int rows = to_int(std::min<int64_t>(kGramTile, n - r));
    if (r == c)
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, rows, count, 1.0f, x.data + r, stride, 1.0f, h.row(r) + c, n);
    else
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, to_int(kGramTile), count, 1.0f, x.data + r, stride,
                  x.data + c, stride, 1.0f, h.row(r) + c, n);
  });
}

void mirror_lower(Matrix& h) {
  assert(h.rows() == h.cols());
  constexpr int64_t kSquare = 64;
  const int64_t n = h.rows();
  parallel_for(tiles(n, kSquare), [&](int64_t tile) {
    const int64_t r0 = tile * kSquare, r1 = std::min(r0 + kSquare, n);
    for (int64_t c0 = 0; c0 < r1; c0 += kSquare)
      for (int64_t c = c0; c < std::min(c0 + kSquare, r1); ++c)
        for (int64_t r = std::max(r0, c + 1); r < r1; ++r) h(c, r) = h(r, c);
  });
}

}  // namespace pare
