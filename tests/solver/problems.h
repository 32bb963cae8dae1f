// Small layers to solve, and GPTQ written down once more: column by column, in double, from the definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "pare/base/threads.h"
#include "pare/solver/solver.h"
#include "pare/tensor/linalg.h"

namespace pare::test {

using Doubles = Plane<double>;

// Calls body(count) for some numbers of threads, the first of them 1.
template <class Body>
void with_threads(Body&& body) {
  const int before = threads();
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    body(count);
  }
  set_threads(before);
}

struct Problem {
  Matrix w, h;  // rows x cols, cols x cols
};

// Weights with some large ones, inputs that share directions and differ in size, channels in no particular order.
inline Problem make_problem(int64_t rows, int64_t cols, unsigned seed = 7) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Problem p{Matrix(rows, cols), Matrix(cols, cols)};
  for (float& x : p.w.values()) x = 0.02f * normal(generator) * (generator() % 40 == 0 ? 4.0f : 1.0f);
  const int64_t samples = 2 * cols, shared = 12;
  const Matrix mix = [&] {
    Matrix m(shared, cols);
    for (float& x : m.values()) x = normal(generator);
    return m;
  }();
  std::vector<float> size(static_cast<size_t>(cols));
  for (float& s : size) s = std::exp(0.8f * normal(generator));
  Matrix x(samples, cols);
  for (int64_t t = 0; t < samples; ++t) {
    for (int64_t s = 0; s < shared; ++s) {
      const float amount = normal(generator);
      for (int64_t c = 0; c < cols; ++c) x(t, c) += amount * mix(s, c);
    }
    for (int64_t c = 0; c < cols; ++c)
      x(t, c) = (x(t, c) + normal(generator)) * size[static_cast<size_t>(c)] / std::sqrt(static_cast<float>(samples));
  }
  add_gram(x, p.h);
  mirror_lower(p.h);
  return p;
}

inline double mean_diagonal(const Matrix& h) {
  double sum = 0;
  int64_t live = 0;
  for (int64_t i = 0; i < h.rows(); ++i) {
    sum += h(i, i);
    live += h(i, i) != 0;
  }
  return sum / static_cast<double>(live);
}
inline Matrix damped(Matrix h, double damp) {
  const double mean = mean_diagonal(h);
  for (int64_t i = 0; i < h.rows(); ++i) h(i, i) += static_cast<float>(damp * mean);
  return h;
}

inline double exact_error(MatrixView w, MatrixView q, const Matrix& h) {
  double total = 0;
  std::vector<double> d(static_cast<size_t>(w.cols));
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t c = 0; c < w.cols; ++c) d[static_cast<size_t>(c)] = static_cast<double>(w(r, c)) - q(r, c);
    for (int64_t i = 0; i < w.cols; ++i) {
      const float* row = h.row(i);
      double sum = 0;
      for (int64_t j = 0; j < w.cols; ++j) sum += row[j] * d[static_cast<size_t>(j)];
      total += d[static_cast<size_t>(i)] * sum;
    }
  }
  return total;
}

// U with UᵀU = h⁻¹: Gauss-Jordan, then Cholesky. Neither is what the library does.
inline Doubles plain_inverse_factor(const Doubles& h) {
  const int64_t n = h.rows();
  Doubles a = h, inverse(n, n), u(n, n);
  for (int64_t i = 0; i < n; ++i) inverse(i, i) = 1;
  for (int64_t p = 0; p < n; ++p) {
    const double pivot = 1 / a(p, p);
    for (int64_t c = 0; c < n; ++c) a(p, c) *= pivot, inverse(p, c) *= pivot;
    for (int64_t r = 0; r < n; ++r) {
      const double f = a(r, p);
      if (r == p || f == 0) continue;
      for (int64_t c = p; c < n; ++c) a(r, c) -= f * a(p, c);
      for (int64_t c = 0; c <= p; ++c) inverse(r, c) -= f * inverse(p, c);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) u(i, j) = inverse(i, j);
    for (int64_t k = 0; k < i; ++k)
      for (int64_t j = i; j < n; ++j) u(i, j) -= u(k, i) * u(k, j);
    const double root = std::sqrt(u(i, i));
    for (int64_t j = i; j < n; ++j) u(i, j) /= root;
  }
  return u;
}

// By falling diagonal, the first of equals first.
inline std::vector<int32_t> plain_order(const Matrix& h, ColumnOrder order, int64_t window) {
  const auto n = static_cast<int32_t>(h.rows());
  std::vector<int32_t> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  std::map<int64_t, double> sum;
  for (int32_t c = 0; c < n; ++c) sum[c / window] += h(c, c);
  std::ranges::stable_sort(out, [&](int32_t a, int32_t b) {
    if (order == ColumnOrder::natural) return false;
    const int64_t wa = a / window, wb = b / window;
    if (order == ColumnOrder::windows && wa != wb) return sum[wa] > sum[wb];
    return h(a, a) > h(b, b);
  });
  return out;
}

// Column by column, every error fed back at once to all later columns.
inline Quantized plain_gptq(const Problem& problem, const Grid& grid, const GptqOptions& o) {
  const auto [rows, cols] = problem.w.shape();
  const bool stored = o.order == ColumnOrder::stored && !o.static_groups;
  Quantized q(grid, problem.w.shape());
  const std::vector<int32_t> order = plain_order(problem.h, o.order, q.window());
  const Matrix full = damped(problem.h, o.damp);
  static std::map<std::pair<std::vector<int32_t>, double>, Doubles> factors;
  Doubles& u = factors[{order, mean_diagonal(full)}];
  if (u.empty()) {
    Doubles h(cols, cols);
    for (int64_t i = 0; i < cols; ++i)
      for (int64_t j = 0; j < cols; ++j) h(i, j) = full(order[static_cast<size_t>(i)], order[static_cast<size_t>(j)]);
    u = plain_inverse_factor(h);
  }

  const auto place = [&](int64_t p) { return stored ? p : order[static_cast<size_t>(p)]; };
  std::vector<float> importance(static_cast<size_t>(cols));
  Matrix now(rows, cols);  // by place
  for (int64_t p = 0; p < cols; ++p) {
    const int64_t column = order[static_cast<size_t>(p)];
    importance[static_cast<size_t>(place(p))] =
        o.fit.importance.empty() ? full(column, column) : o.fit.importance[static_cast<size_t>(column)];
    for (int64_t r = 0; r < rows; ++r) now(r, place(p)) = problem.w(r, column);
  }
  Doubles live(rows, cols);  // by place
  std::ranges::copy(now.values(), live.data());
  FitHow how = o.fit;
  how.importance = importance;
  std::vector<bool> fitted(static_cast<size_t>(q.windows()));
  for (int64_t p = 0; p < cols; ++p) {
    const int64_t window = place(p) / q.window();
    for (int64_t i = 0; i < q.windows(); ++i)
      if (!fitted[static_cast<size_t>(i)] && (o.static_groups || i == window)) {
        std::ranges::copy(live.values(), now.data());
        q.fit(i, now, how);
        fitted[static_cast<size_t>(i)] = true;
      }
    for (int64_t r = 0; r < rows; ++r) {
      const uint8_t code = q.nearest(r, place(p), static_cast<float>(live(r, place(p))));
      q.set(r, place(p), code);
      const double error = (live(r, place(p)) - q.value(r, place(p))) / u(p, p);
      for (int64_t k = p + 1; k < cols; ++k) live(r, place(k)) -= error * u(p, k);
    }
  }
  if (stored) q.order = order;
  return q;
}

inline double share_of_equal_codes(const Quantized& a, const Quantized& b) {
  int64_t equal = 0;
  for (int64_t i = 0; i < a.codes.size(); ++i) equal += a.codes.data()[i] == b.codes.data()[i];
  return static_cast<double>(equal) / static_cast<double>(a.codes.size());
}

}  // namespace pare::test
