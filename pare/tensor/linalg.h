// Dense linear algebra over BLAS/LAPACK, cut into fixed tiles that each run on one thread, so that results do not
// depend on the number of threads. All matrices row-major f32.
#pragma once

#include <optional>

#include "pare/tensor/matrix.h"

namespace pare {

struct Position {
  int64_t row = 0, col = 0;
};
// The first element, by rows, that is NaN or infinite.
std::optional<Position> find_not_finite(MatrixView m);

// y (m x n) = x (m x k) · wᵀ, w (n x k); with `accumulate`, y += …. Strides in floats.
void multiply_transposed(MatrixView x, MatrixView w, float* y, int64_t y_stride, bool accumulate = false);
// y (m x n) += alpha · a (m x k) · b (k x n).
void multiply_add(float alpha, MatrixView a, MatrixView b, float* y, int64_t y_stride);

// h (k x k) += xᵀ x for x (t x k): only the lower triangle (row ≥ column) is written.
void add_gram(MatrixView x, Matrix& h);
// Mirrors the lower triangle onto the upper one.
void mirror_lower(Matrix& h);

// In-place lower Cholesky factor of the lower triangle. False when not positive definite (content then undefined).
bool cholesky_lower(Matrix& a);

}  // namespace pare
