#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <numeric>

#include "pare/base/error.h"
#include "pare/base/threads.h"
#include "pare/solver/solver.h"
#include "pare/tensor/linalg.h"

namespace pare {
namespace {

std::vector<float> diagonal_of(const Matrix& h) {
  std::vector<float> diagonal(static_cast<size_t>(h.rows()));
  for (int64_t i = 0; i < h.rows(); ++i) diagonal[static_cast<size_t>(i)] = h(i, i);
  return diagonal;
}

std::vector<int32_t> zeros_of(std::span<const float> diagonal) {
  std::vector<int32_t> zeros;
  for (size_t i = 0; i < diagonal.size(); ++i)
    if (diagonal[i] == 0) zeros.push_back(static_cast<int32_t>(i));
  return zeros;
}

// Consecutive columns [first, last) that an order keeps together, and their importance.
struct Run {
  int64_t first, last;
  double importance;
};
std::vector<Run> runs_by_importance(std::span<const float> diagonal, int64_t first, int64_t last, int64_t size) {
  std::vector<Run> runs;
  for (int64_t c = first; c < last; c += size) {
    const int64_t end = std::min(c + size, last);
    runs.push_back({c, end, std::accumulate(diagonal.begin() + c, diagonal.begin() + end, 0.0)});
  }
  std::ranges::stable_sort(runs, std::greater{}, &Run::importance);
  return runs;
}

std::vector<int32_t> choose_order(std::span<const float> diagonal, ColumnOrder order, int64_t window, int step) {
  std::vector<int32_t> out;
  const auto append_by_importance = [&](int64_t first, int64_t last) {
    for (const Run& run : runs_by_importance(diagonal, first, last, step))
      for (int64_t c = run.first; c < run.last; ++c) out.push_back(static_cast<int32_t>(c));
  };
  const int64_t n = std::ssize(diagonal);
  if (order == ColumnOrder::stored) append_by_importance(0, n);
  if (order == ColumnOrder::windows)
    for (const Run& run : runs_by_importance(diagonal, 0, n, window)) append_by_importance(run.first, run.last);
  return out;
}

// The lower triangle of h with rows and columns in the reverse of `order` (empty: as they are) and `add` on the
// diagonal.
Matrix reversed(const Matrix& h, std::span<const int32_t> order, std::span<const float> add) {
  const int64_t n = h.rows();
  Matrix out(n, n);
  const auto column = [&](int64_t p) { return order.empty() ? p : order[static_cast<size_t>(p)]; };
  parallel_for(n, [&](int64_t r) {
    const int64_t row = column(n - 1 - r);
    const float* from = h.row(row);
    float* to = out.row(r);
    for (int64_t c = 0; c <= r; ++c) to[c] = from[column(n - 1 - c)];
    to[r] += add[static_cast<size_t>(row)];
  });
  return out;
}

// From L with J h J = L Lᵀ, J the reversal: R = J L J is upper triangular and h = R Rᵀ. Turns L into R with every
// column divided by its diagonal element, and returns those.
std::vector<float> turn_into_feedback(Matrix& l) {
  const int64_t n = l.rows();
  std::vector<float> scales(static_cast<size_t>(n)), inverse(scales.size());
  for (int64_t k = 0; k < n; ++k) {
    scales[static_cast<size_t>(k)] = l(n - 1 - k, n - 1 - k);
    inverse[static_cast<size_t>(k)] = 1 / scales[static_cast<size_t>(k)];
  }
  const auto write = [&](int64_t row, const std::vector<float>& reversed_row) {
    float* to = l.row(row);
    std::fill_n(to, row, 0.0f);
    to[row] = 1;
    for (int64_t k = row + 1; k < n; ++k)
      to[k] = reversed_row[static_cast<size_t>(n - 1 - k)] * inverse[static_cast<size_t>(k)];
  };
  parallel_for((n + 1) / 2, [&](int64_t r) {
    const std::vector<float> first(l.row(r), l.row(r) + n), last(l.row(n - 1 - r), l.row(n - 1 - r) + n);
    write(r, last);
    write(n - 1 - r, first);
  });
  return scales;
}

}  // namespace

HessianFactor factor_hessian(const Matrix& hessian, int64_t window, const GptqOptions& options, int step) {
  assert(hessian.rows() == hessian.cols() && window > 0 && step > 0);
  if (const auto bad = find_not_finite(hessian))
    throw Error({.what = "the second moment of a layer's inputs is not finite",
                 .where = fmt::format("input channels {} and {}", bad->row, bad->col),
                 .remedy = "the model overflows on the calibration text: check its weights, or use other text"});

  HessianFactor factor;
  const std::vector<float> diagonal = diagonal_of(hessian);
  factor.dead = zeros_of(diagonal);
  const auto live = std::ssize(diagonal) - std::ssize(factor.dead);
  if (live == 0)
    throw Error({.what = "calibration never reached this layer: all its inputs were 0",
                 .remedy = "use more or other calibration text, or round this layer to nearest"});
  const double mean = std::accumulate(diagonal.begin(), diagonal.end(), 0.0) / static_cast<double>(live);
  factor.order = choose_order(diagonal, options.order, window, step);

  for (double damp = options.damp;; damp = std::min(1.0, std::max(10 * damp, 1e-6)), ++factor.attempts) {
    std::vector<float> add(diagonal.size(), static_cast<float>(damp * mean));
    factor.diagonal = diagonal;
    for (size_t i = 0; i < add.size(); ++i) factor.diagonal[i] += add[i];
    // A dead column is tied to no other, so any positive value on the diagonal does.
    for (const int32_t c : factor.dead) add[static_cast<size_t>(c)] = static_cast<float>(mean);
    factor.damp = damp;
    factor.feedback = reversed(hessian, factor.order, add);
    if (cholesky_lower(factor.feedback)) {
      factor.scale = turn_into_feedback(factor.feedback);
      return factor;
    }
    if (damp >= 1)
      throw Error({.what = "the second moment of a layer's inputs cannot be factored",
                   .expected = "a positive definite matrix",
                   .got = fmt::format("none even with {} times its mean diagonal added", damp),
                   .remedy = "use more calibration text, or round this layer to nearest"});
  }
}

// Rows are taken some at a time, so that the product needs little memory.
double output_error(MatrixView w, MatrixView q, const Matrix& hessian) {
  constexpr int64_t kRows = 512;
  assert(w.shape() == q.shape() && w.cols == hessian.rows());
  double total = 0;
  for (int64_t first = 0; first < w.rows; first += kRows) {
    const int64_t rows = std::min(kRows, w.rows - first);
    Matrix error(rows, w.cols), product(rows, w.cols);
    std::vector<double> sums(static_cast<size_t>(rows));
    parallel_for(rows, [&](int64_t r) {
      for (int64_t c = 0; c < w.cols; ++c) error(r, c) = w(first + r, c) - q(first + r, c);
    });
    multiply_transposed(error, hessian, product.data(), product.cols());
    parallel_for(rows, [&](int64_t r) {
      sums[static_cast<size_t>(r)] = std::inner_product(error.row(r), error.row(r) + w.cols, product.row(r), 0.0);
    });
    total = std::accumulate(sums.begin(), sums.end(), total);
  }
  return total;
}

double relative_output_error(MatrixView w, MatrixView q, const Matrix& hessian) {
  const Matrix nothing(w.rows, w.cols);
  const double whole = output_error(w, nothing, hessian);
  return whole > 0 ? output_error(w, q, hessian) / whole : 0;
}

}  // namespace pare
