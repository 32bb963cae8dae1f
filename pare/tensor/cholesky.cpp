// Cholesky and the inverse of its factor. Columns are halved until a diagonal block is small: only that block is
// factored on one thread; all else is triangular solves and, mostly, products, both parallel over tiles.
#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cassert>

#include "pare/tensor/linalg.h"
#include "pare/tensor/tiles.h"

namespace pare {
namespace {

constexpr int64_t kSmall = 64;        // size of a diagonal block
constexpr int64_t kPanel = 256;       // rows of the inverse that are finished before they are applied below
constexpr int64_t kSolveTile = 256;   // rows or columns per triangular solve
constexpr int64_t kUpdateTile = 512;  // rows and columns per product

// Splits [first, last) at a multiple of kSmall.
int64_t middle(int64_t first, int64_t last) { return first + (last - first + kSmall) / (2 * kSmall) * kSmall; }

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

// Lower triangle of columns [mid, last), all rows from mid on -= P Pᵀ, P = columns [first, mid) of these rows.
void subtract_gram(Matrix& a, int64_t first, int64_t mid, int64_t last) {
  const int stride = to_int(a.cols()), width = to_int(mid - first);
  const int64_t across = tiles(last - mid, kUpdateTile);
  for_tiles(tiles(a.rows() - mid, kUpdateTile) * across, [&](int64_t tile) {
    const int64_t r = mid + tile / across * kUpdateTile, c = mid + tile % across * kUpdateTile;
    if (c > r) return;
    const int rows = to_int(std::min(kUpdateTile, a.rows() - r)), cols = to_int(std::min(kUpdateTile, last - c));
    const float *left = a.row(r) + first, *right = a.row(c) + first;
    float* out = a.row(r) + c;
    const int square = r == c ? cols : 0;  // the corner on the diagonal
    if (square > 0)
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, square, width, -1.0f, left, stride, 1.0f, out, stride);
    if (rows > square)
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows - square, cols, width, -1.0f, left + square * a.cols(),
                  stride, right, stride, 1.0f, out + square * a.cols(), stride);
  });
}

// Columns [first, last) of the factor, all rows, given that all columns before them are already subtracted.
bool factor_columns(Matrix& a, int64_t first, int64_t last) {
  const int64_t n = a.rows();
  if (last - first <= kSmall) {
    float* block = a.row(first) + first;
    if (!factor_block(block, last - first, n)) return false;
    solve_below(block, last - first, n, block + (last - first) * n, n - last);
    return true;
  }
  const int64_t mid = middle(first, last);
  if (!factor_columns(a, first, mid)) return false;
  subtract_gram(a, first, mid, last);
  return factor_columns(a, mid, last);
}

// Takes a block out of m and leaves zeros.
Matrix take(Matrix& m, int64_t first_row, int64_t last_row, int64_t first_col, int64_t last_col) {
  Matrix out(last_row - first_row, last_col - first_col);
  parallel_for(out.rows(), [&](int64_t i) {
    float* from = m.row(first_row + i) + first_col;
    std::copy_n(from, out.cols(), out.row(i));
    std::fill_n(from, out.cols(), 0.0f);
  });
  return out;
}

// Rows [first, last) of l := their rows of the inverse, given that all rows before them are already applied.
void invert_rows(Matrix& l, int64_t first, int64_t last) {
  const int64_t n = l.rows();
  if (last - first <= kSmall) {
    const Matrix block = take(l, first, last, first, last);
    for (int64_t i = first; i < last; ++i) l(i, i) = 1;
    for_tiles(tiles(last, kSolveTile), [&](int64_t tile) {
      const int64_t c = tile * kSolveTile;
      cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, to_int(block.rows()),
                  to_int(std::min(kSolveTile, last - c)), 1.0f, block.data(), to_int(block.cols()), l.row(first) + c,
                  to_int(n));
    });
    return;
  }
  const int64_t mid = middle(first, last);
  invert_rows(l, first, mid);
  const Matrix below = take(l, mid, last, first, mid);
  multiply_add(-1.0f, below, MatrixView(l.row(first), mid - first, mid, n), l.row(mid), n);
  invert_rows(l, mid, last);
}

// Lower triangular l := l⁻¹ (zeros above the diagonal stay zeros) by forward substitution on the identity, which grows
// where l shrinks: after a panel's turn its rows are final, and the rows below hold what later panels are still to be
// applied to.
void invert_lower(Matrix& l) {
  const int64_t n = l.rows();
  for (int64_t first = 0; first < n; first += kPanel) {
    const int64_t last = std::min(first + kPanel, n);
    invert_rows(l, first, last);
    const Matrix below = take(l, last, n, first, last);
    multiply_add(-1.0f, below, MatrixView(l.row(first), last - first, last, n), l.row(last), n);
  }
}

void zero_above_diagonal(Matrix& m) {
  parallel_for(m.rows(), [&](int64_t r) { std::fill(m.row(r) + r + 1, m.row(r) + m.cols(), 0.0f); });
}

// J m J, J being the reversal of an order: all values back to front.
void reverse_both(Matrix& m) {
  const int64_t n = m.rows();
  parallel_for((n + 1) / 2, [&](int64_t r) {
    if (r == n - 1 - r)
      std::reverse(m.row(r), m.row(r) + m.cols());
    else
      std::swap_ranges(m.row(r), m.row(r) + m.cols(), std::make_reverse_iterator(m.row(n - 1 - r) + m.cols()));
  });
}

}  // namespace

bool cholesky_lower(Matrix& a) {
  assert(a.rows() == a.cols());
  return factor_columns(a, 0, a.rows());
}

// J h J = L Lᵀ gives h⁻¹ = Uᵀ U for U = J L⁻¹ J, which is upper triangular: one factorization, one triangular inverse.
bool inverse_factor(Matrix h, Matrix& u) {
  reverse_both(h);
  if (!cholesky_lower(h)) return false;
  zero_above_diagonal(h);
  invert_lower(h);
  reverse_both(h);
  u = std::move(h);
  return true;
}

}  // namespace pare
