// The Cholesky factor, in panels: a block on the diagonal is factored on one thread, all else is
// triangular solves and, mostly, products, both parallel over tiles.
#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cassert>

#include "pare/tensor/linalg.h"
#include "pare/tensor/tiles.h"

namespace pare {
namespace {

constexpr int64_t kPanel = 256;
constexpr int64_t kSolveTile = 256;   // rows or columns per triangular solve
constexpr int64_t kUpdateTile = 512;  // rows and columns per product

// Factors the block on the diagonal in place.
bool factor_block(float* block, int64_t n, int64_t stride) {
  int failed = 0;
  // Row-major lower is column-major upper.
  for_tiles(1, [&](int64_t) { failed = LAPACKE_spotrf(LAPACK_COL_MAJOR, 'U', to_int(n), block, to_int(stride)); });
  return failed == 0;
}

// rows := rows · L⁻ᵀ, L the block on the diagonal above them.
void solve_below(const float* block, int64_t n, int64_t stride, float* rows, int64_t count) {
  for_tiles(tiles(count, kSolveTile), [&](int64_t tile) {
    const int64_t r = tile * kSolveTile;
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit,
                to_int(std::min(kSolveTile, count - r)), to_int(n), 1.0f, block, to_int(stride), rows + r * stride,
                to_int(stride));
  });
}

// The lower triangle of a from row and column `mid` on -= P Pᵀ, P = columns [first, mid) of these rows.
void subtract_gram(Matrix& a, int64_t first, int64_t mid) {
  const int stride = to_int(a.cols()), width = to_int(mid - first);
  const int64_t down = tiles(a.rows() - mid, kUpdateTile);
  for_tiles(down * (down + 1) / 2, [&](int64_t tile) {
    int64_t i = 0;
    while ((i + 1) * (i + 2) / 2 <= tile) ++i;
    const int64_t r = mid + i * kUpdateTile, c = mid + (tile - i * (i + 1) / 2) * kUpdateTile;
    const float *left = a.row(r) + first, *right = a.row(c) + first;
    const int rows = to_int(std::min(kUpdateTile, a.rows() - r));
    if (r == c)
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, rows, width, -1.0f, left, stride, 1.0f, a.row(r) + c,
                  stride);
    else
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, to_int(kUpdateTile), width, -1.0f, left, stride, right,
                  stride, 1.0f, a.row(r) + c, stride);
  });
}

}  // namespace

bool cholesky_lower(Matrix& a) {
  assert(a.rows() == a.cols());
  const int64_t n = a.rows();
  for (int64_t first = 0; first < n; first += kPanel) {
    const int64_t last = std::min(first + kPanel, n), width = last - first;
    float* block = a.row(first) + first;
    if (!factor_block(block, width, n)) return false;
    solve_below(block, width, n, block + width * n, n - last);
    subtract_gram(a, first, last);
  }
  return true;
}

}  // namespace pare
