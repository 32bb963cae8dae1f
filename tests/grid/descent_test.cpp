// A small descent under a Hessian, written against the public questions of Quantized alone: it must work on every
// family without naming one, lower the error by codes and by parameters, and leave something that files can hold.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "pare/container/gguf_blocks.h"
#include "tests/grid/grids.h"

namespace pare {
namespace {

using namespace test;

class EveryGridDescends : public testing::TestWithParam<Grid> {};
INSTANTIATE_TEST_SUITE_P(Grids, EveryGridDescends, testing::ValuesIn(all_grids()), grid_label);

using Doubles = std::vector<double>;

// Inputs with correlated columns: H = XᵀX / samples + 0.1 mean(diag) I.
Plane<double> random_hessian(int64_t cols, unsigned seed) {
  constexpr int64_t kSamples = 96;
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Plane<double> x(kSamples, cols), h(cols, cols);
  for (int64_t t = 0; t < kSamples; ++t) {
    double carried = 0;
    for (int64_t c = 0; c < cols; ++c) {
      carried = 0.8 * carried + normal(random);
      x(t, c) = carried * (c % 17 == 3 ? 4 : 1);
    }
  }
  for (int64_t t = 0; t < kSamples; ++t)
    for (int64_t i = 0; i < cols; ++i)
      for (int64_t j = 0; j < cols; ++j) h(i, j) += x(t, i) * x(t, j) / kSamples;
  double mean = 0;
  for (int64_t i = 0; i < cols; ++i) mean += h(i, i) / static_cast<double>(cols);
  for (int64_t i = 0; i < cols; ++i) h(i, i) += 0.1 * mean;
  return h;
}

// One row on its way down: e = w - values, g = e H.
class RowDescent {
 public:
  RowDescent(Quantized& q, int64_t row, MatrixView w, const Plane<double>& h)
      : q_(q), row_(row), h_(h), e_(static_cast<size_t>(w.cols)), g_(e_.size()) {
    for (int64_t c = 0; c < w.cols; ++c) e_[at(c)] = double{w(row, c)} - double{q.value(row, c)};
    for (int64_t i = 0; i < w.cols; ++i)
      for (int64_t j = 0; j < w.cols; ++j) g_[at(j)] += e_[at(i)] * h(i, j);
  }

  double error() const { return std::inner_product(e_.begin(), e_.end(), g_.begin(), 0.0); }

  int sweep_codes() {
    int changed = 0;
    for (int64_t c = 0; c < q_.shape().cols; ++c) {
      const float now = q_.value(row_, c);
      const auto wanted = static_cast<float>(double{now} + g_[at(c)] / h_(c, c));
      const uint8_t code = q_.nearest(row_, c, wanted);
      const double delta = double{q_.value(row_, c, code)} - double{now};
      if (code == q_.codes(row_, c) || -2 * delta * g_[at(c)] + delta * delta * h_(c, c) >= 0) continue;
      q_.set(row_, c, code);
      move(c, delta);
      ++changed;
    }
    return changed;
  }

  int refit_parameters() {
    int changed = 0;
    for (int64_t window = 0; window < q_.windows(); ++window)
      for (int index = 0; index < q_.parameters(); ++index) changed += refit(window, index);
    return changed;
  }

 private:
  static size_t at(int64_t c) { return static_cast<size_t>(c); }

  void move(int64_t c, double delta) {
    e_[at(c)] -= delta;
    for (int64_t j = 0; j < q_.shape().cols; ++j) g_[at(j)] -= delta * h_(c, j);
  }

  bool refit(int64_t window, int index) {
    const Parameter p = q_.parameter(row_, window, index);
    std::vector<float> a(at(p.last - p.first));
    q_.derivative(row_, window, index, a);
    double ag = 0, aha = 0;
    for (int64_t i = p.first; i < p.last; ++i) {
      const double ai = a[at(i - p.first)];
      ag += ai * g_[at(i)];
      for (int64_t j = p.first; j < p.last; ++j) aha += ai * h_(i, j) * double{a[at(j - p.first)]};
    }
    if (aha <= 0) return false;
    const float x = q_.rounded(index, static_cast<float>(double{p.value} + ag / aha));
    if (x == p.value) return false;
    const double before = error();
    step(p, window, index, x);
    if (error() < before) return true;
    step(p, window, index, p.value);
    return false;
  }

  void step(const Parameter& p, int64_t window, int index, float x) {
    std::vector<float> before;
    for (int64_t c = p.first; c < p.last; ++c) before.push_back(q_.value(row_, c));
    q_.set_parameter(row_, window, index, x);
    for (int64_t c = p.first; c < p.last; ++c) move(c, double{q_.value(row_, c)} - double{before[at(c - p.first)]});
  }

  Quantized& q_;
  int64_t row_;
  const Plane<double>& h_;
  Doubles e_, g_;
};

double error_under(MatrixView w, const Matrix& v, const Plane<double>& h) {
  double sum = 0;
  for (int64_t r = 0; r < w.rows; ++r)
    for (int64_t i = 0; i < w.cols; ++i)
      for (int64_t j = 0; j < w.cols; ++j)
        sum += (double{w(r, i)} - double{v(r, i)}) * h(i, j) * (double{w(r, j)} - double{v(r, j)});
  return sum;
}

void expect_files_hold(const Quantized& q) {
  const GgmlTypeInfo* type = ggml_type_of(q.grid());
  if (!type) return;
  std::vector<std::byte> bytes(ggml_bytes(*type, {q.shape().rows, q.shape().cols}));
  encode_blocks(q, bytes);
  EXPECT_EQ(dequantize(decode_blocks(*type, q.shape(), bytes, "descended")), dequantize(q));
}

TEST_P(EveryGridDescends, CodesAndParametersLowerTheErrorUnderAHessian) {
  const Matrix w = random_weights(5, 256, 41);
  const Plane<double> h = random_hessian(256, 42);
  Quantized q = quantized(GetParam(), w, {});
  const double nearest = error_under(w, dequantize(q), h);
  Quantized codes_only = q;
  int moved = 0;
  for (int64_t row = 0; row < 5; ++row) {
    RowDescent descent(codes_only, row, w, h);
    for (int round = 0; round < 6; ++round) descent.sweep_codes();
    RowDescent both(q, row, w, h);
    double last = both.error();
    for (int round = 0; round < 3; ++round) {
      for (int sweep = 0; sweep < 4 && both.sweep_codes(); ++sweep) continue;
      EXPECT_LE(both.error(), last * (1 + 1e-9));
      last = both.error();
      moved += both.refit_parameters();
      EXPECT_LE(both.error(), last * (1 + 1e-9));
      last = both.error();
    }
  }
  const double with_codes = error_under(w, dequantize(codes_only), h), with_both = error_under(w, dequantize(q), h);
  EXPECT_LT(with_codes, 0.9 * nearest);
  // Three levels of 256 columns leave the scale so little room that the codes' own way down may end lower.
  EXPECT_LT(with_both, with_codes * (levels_of(GetParam()) == 3 ? 1.02 : 1));
  const auto* table = std::get_if<CodebookSpec>(&GetParam());
  if (!table || scale_bits(table->scale) > 8) {  // of 8 bits, the nearest to the best is often the one that is there
    EXPECT_GT(moved, 0);
  }
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t window = 0; window < q.windows(); ++window)
      for (int i = 0; i < q.parameters(); ++i) {
        const Parameter p = q.parameter(row, window, i);
        ASSERT_EQ(q.rounded(i, p.value), p.value);
      }
  expect_files_hold(q);
}

// Every parameter: values move by the derivative times the step, only where the parameter says, and only in its row.
TEST_P(EveryGridDescends, DerivativesAreThoseOfTheValues) {
  const Matrix w = random_weights(2, 256, 43);
  Quantized q = quantized(GetParam(), w, {});
  std::set<int64_t> covered;
  for (int64_t window = 0; window < q.windows(); ++window)
    for (int index = 0; index < q.parameters(); ++index) {
      const Matrix before = dequantize(q);
      const Parameter p = q.parameter(1, window, index);
      ASSERT_GE(p.first, window * q.window());
      ASSERT_LE(p.last, (window + 1) * q.window());
      std::vector<float> slope(static_cast<size_t>(p.last - p.first));
      q.derivative(1, window, index, slope);
      const float far = q.rounded(index, p.value == p.highest ? p.value - 1 : 1.25f * p.value + 1);
      q.set_parameter(1, window, index, far);
      ASSERT_EQ(q.parameter(1, window, index).value, far);
      const Matrix after = dequantize(q);
      for (int64_t c = 0; c < 256; ++c) {
        ASSERT_EQ(after(0, c), before(0, c));
        const bool inside = c >= p.first && c < p.last;
        const double moved = double{after(1, c)} - double{before(1, c)};
        const double expected =
            inside ? double{slope[static_cast<size_t>(c - p.first)]} * (double{far} - double{p.value}) : 0;
        ASSERT_NEAR(moved, expected, 1e-6 * (std::abs(after(1, c)) + std::abs(before(1, c)))) << index << " " << c;
        if (inside) covered.insert(c);
      }
      q.set_parameter(1, window, index, p.value);
      ASSERT_EQ(dequantize(q), before);
    }
  EXPECT_EQ(covered.size(), 256u);
}

TEST_P(EveryGridDescends, RoundingStaysWithinWhatIsStored) {
  Quantized q = quantized(GetParam(), random_weights(2, 256, 44), {});
  for (int index = 0; index < q.parameters(); ++index)
    for (float x : {-1e30f, -300.0f, -0.7f, 0.0f, 1e-9f, 0.3f, 70.2f, 1e30f, NAN}) {
      const float r = q.rounded(index, x);
      const Parameter p = q.parameter(1, 0, index);
      ASSERT_GE(r, p.lowest);
      ASSERT_LE(r, p.highest);
      ASSERT_EQ(q.rounded(index, r), r);
      q.set_parameter(1, 0, index, r);
      ASSERT_EQ(q.parameter(1, 0, index).value, r);
    }
  expect_files_hold(q);
}

}  // namespace
}  // namespace pare
