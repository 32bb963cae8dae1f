// Ways to choose codes. A solver sees a matrix, what calibration measured, and a grid: never a file format and never a
// concrete grid.
#pragma once

#include <memory>

#include "pare/grid/quantized.h"

namespace pare {

// Fit and nearest code, window by window. Sets how.nearest_follows.
Quantized round_to_nearest(MatrixView w, const Grid& grid, const FitHow& how = {});

// In which order error feedback visits columns.
enum class ColumnOrder : uint8_t {
  natural,
  windows,  // whole windows by falling sum of diag(H), inside a window by falling diag(H): needs no stored order
  stored,   // columns by falling diag(H), windows formed along it ("desc_act"): the container must store the order
};

struct GptqOptions {
  double damp = 0.1;    // times the mean of diag(H)
  int64_t block = 128;  // columns whose error is spread lazily; changes no result beyond rounding
  ColumnOrder order = ColumnOrder::windows;
  // Fit every window first, on the original weights. Windows are then those of the original columns whatever the
  // order, so even `stored` leaves Quantized::order empty.
  bool static_groups = false;
  FitHow fit = {};  // importance per original column; empty: HessianFactor::diagonal
};

// What GPTQ needs of a Hessian, factored once for all matrices that share an input (q, k and v; gate and up): with
// H + damp·mean·I = R Rᵀ, R upper triangular, tr(E H Eᵀ) = Σ ‖columns of E R‖², and column k of E R holds no error of
// later columns.
struct HessianFactor {
  Matrix feedback;              // R_ik / R_kk, in `order`: unit upper triangular
  std::vector<float> scale;     // R_kk, in `order`
  std::vector<int32_t> order;   // position -> column; empty: natural
  std::vector<int32_t> dead;    // columns whose inputs were always 0
  std::vector<float> diagonal;  // of the damped H, per original column
  double damp = 0;              // the one that factored: grows when the first did not
  int attempts = 1;
};
// `hessian` is symmetric (both triangles), K x K. `window` is the grid's (window_of), `step` Quantized::step: so many
// columns stay together in every order. Throws Error when H holds NaN or infinity, when no input was ever other than 0,
// or when H cannot be factored even with damping 1.
HessianFactor factor_hessian(const Matrix& hessian, int64_t window, const GptqOptions& options, int step = 1);

struct GptqResult {
  Quantized quantized;
  double loss = 0;  // tr((W-Q) H (W-Q)ᵀ) of the damped H
};
// Source: Frantar et al. 2022 (arXiv 2210.17323), on any grid; order and fits per design/quality.md §3.3. Computed from
// the Cholesky factor of H itself instead of its inverse's, as in Chen et al. 2025 (arXiv 2507.18553): the same codes.
GptqResult gptq(Matrix w, const HessianFactor& factor, const Grid& grid, const GptqOptions& options);

// tr((W-Q) H (W-Q)ᵀ), and the same over tr(W H Wᵀ).
double output_error(MatrixView w, MatrixView q, const Matrix& hessian);
double relative_output_error(MatrixView w, MatrixView q, const Matrix& hessian);

}  // namespace pare
