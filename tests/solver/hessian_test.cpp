#include <gtest/gtest.h>

#include <limits>

#include "pare/base/error.h"
#include "tests/solver/problems.h"

namespace pare {
namespace {

using test::damped, test::make_problem, test::mean_diagonal;

GptqOptions ordered(ColumnOrder order, double damp = 0.01) { return {.damp = damp, .order = order}; }

// Largest deviation of R Rᵀ from h taken in the factor's order, relative to h's mean diagonal.
double deviation(const HessianFactor& f, const Matrix& h) {
  const int64_t n = h.rows();
  const auto column = [&](int64_t p) { return f.order.empty() ? p : f.order[static_cast<size_t>(p)]; };
  double worst = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i; j < n; ++j) {
      double sum = 0;
      for (int64_t k = j; k < n; ++k) {
        const double scale = f.scale[static_cast<size_t>(k)];
        sum += f.feedback(i, k) * f.feedback(j, k) * scale * scale;
      }
      worst = std::max(worst, std::abs(sum - h(column(i), column(j))));
    }
  return worst / mean_diagonal(h);
}

TEST(Hessian, FactorTimesItsTransposeIsTheDampedHessianInItsOrder) {
  const Matrix h = make_problem(1, 160).h;
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::windows, ColumnOrder::stored}) {
    const HessianFactor f = factor_hessian(h, 32, ordered(order));
    EXPECT_LT(deviation(f, damped(h, 0.01)), 1e-5);
    EXPECT_GT(deviation(f, damped(h, 0.02)), 5e-3) << "the check does not see damping";
    EXPECT_EQ(f.damp, 0.01);
    EXPECT_EQ(f.attempts, 1);
    EXPECT_TRUE(f.dead.empty());
    for (int64_t i = 0; i < h.rows(); ++i) EXPECT_FLOAT_EQ(f.diagonal[static_cast<size_t>(i)], damped(h, 0.01)(i, i));
  }
}

TEST(Hessian, OrdersAreThoseOfTheSpecification) {
  const Matrix h = make_problem(1, 150).h;
  EXPECT_TRUE(factor_hessian(h, 32, ordered(ColumnOrder::natural)).order.empty());
  for (const int64_t window : {1, 32, 64, 150})  // 150 is no multiple of 32 and 64: the last window is short
    for (const ColumnOrder order : {ColumnOrder::windows, ColumnOrder::stored})
      EXPECT_EQ(factor_hessian(h, window, ordered(order)).order, test::plain_order(h, order, window)) << window;
}

TEST(Hessian, OrdersKeepStepsWhole) {
  const Matrix h = make_problem(1, 96).h;
  for (const ColumnOrder order : {ColumnOrder::windows, ColumnOrder::stored}) {
    const std::vector<int32_t> got = factor_hessian(h, 32, ordered(order), 8).order;
    ASSERT_EQ(got.size(), 96u);
    double before = std::numeric_limits<double>::infinity();
    for (size_t p = 0; p < got.size(); p += 8) {
      EXPECT_EQ(got[p] % 8, 0);
      double sum = 0;
      for (size_t i = 0; i < 8; ++i) {
        EXPECT_EQ(got[p + i], got[p] + static_cast<int32_t>(i));
        sum += h(got[p + i], got[p + i]);
      }
      if (order == ColumnOrder::stored || p % 32 != 0) {
        EXPECT_LE(sum, before);
      }
      before = sum;
    }
  }
}

TEST(Hessian, EqualColumnsKeepTheirPlaces) {
  Matrix h(8, 8);
  for (int64_t i = 0; i < 8; ++i) h(i, i) = 1;
  EXPECT_EQ(factor_hessian(h, 4, ordered(ColumnOrder::stored)).order, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(Hessian, DeadColumnsAreNamedAndHarmless) {
  Matrix h = make_problem(1, 64).h;
  for (const int64_t dead : {5, 40})
    for (int64_t i = 0; i < 64; ++i) h(dead, i) = h(i, dead) = 0;
  for (const double damp : {0.01, 0.0}) {
    const HessianFactor f = factor_hessian(h, 32, ordered(ColumnOrder::stored, damp));
    EXPECT_EQ(f.dead, (std::vector<int32_t>{5, 40}));
    EXPECT_EQ(f.attempts, 1);
    EXPECT_EQ(f.order[62], 5) << "what matters least comes last";
    EXPECT_EQ(f.order[63], 40);
    EXPECT_FLOAT_EQ(f.diagonal[5], static_cast<float>(damp * mean_diagonal(h))) << "damping by the mean of the live";
    for (int64_t i = 0; i < 62; ++i) EXPECT_EQ(f.feedback(i, 62), 0);
  }
}

TEST(Hessian, DampingGrowsUntilItFactorsAndSaysSo) {
  Matrix h = make_problem(1, 64).h;
  h(9, 9) -= static_cast<float>(0.05 * mean_diagonal(h)) + h(9, 9);  // a negative direction
  const HessianFactor f = factor_hessian(h, 32, ordered(ColumnOrder::natural, 0.001));
  EXPECT_GT(f.attempts, 1);
  EXPECT_NEAR(f.damp, 0.001 * std::pow(10, f.attempts - 1), 1e-9);
  EXPECT_LT(deviation(f, damped(h, f.damp)), 1e-2);

  Matrix flat(64, 64, 1.0f);  // rank one
  const HessianFactor g = factor_hessian(flat, 32, ordered(ColumnOrder::natural, 0));
  EXPECT_GT(g.attempts, 1);
  EXPECT_GT(g.damp, 0);
  EXPECT_LE(g.damp, 1e-3);
}

TEST(Hessian, RefusesWhatCannotBeFactored) {
  const auto refuses = [](const Matrix& h) {
    try {
      factor_hessian(h, 32, ordered(ColumnOrder::natural));
    } catch (const Error& e) {
      return e.code() == ExitCode::bad_input && !e.info().remedy.empty();
    }
    return false;
  };
  Matrix h = make_problem(1, 64).h;
  h(3, 3) = -1e6f;
  EXPECT_TRUE(refuses(h)) << "negative";
  EXPECT_TRUE(refuses(Matrix(64, 64))) << "zero";
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Matrix b = make_problem(1, 64).h;
    b(60, 2) = bad;
    EXPECT_TRUE(refuses(b)) << bad;
  }
}

TEST(Hessian, OutputErrorIsTheDefinition) {
  const test::Problem p = make_problem(530, 96);
  const Matrix q = dequantize(pare::round_to_nearest(p.w, AffineSpec{3, 32, true, 0}));
  const double exact = test::exact_error(p.w, q, p.h), whole = test::exact_error(p.w, Matrix(530, 96), p.h);
  EXPECT_NEAR(output_error(p.w, q, p.h), exact, 1e-5 * exact);
  EXPECT_NEAR(relative_output_error(p.w, q, p.h), exact / whole, 1e-5 * exact / whole);
  EXPECT_EQ(output_error(p.w, p.w, p.h), 0);
  EXPECT_EQ(relative_output_error(Matrix(2, 96), Matrix(2, 96), p.h), 0);
}

}  // namespace
}  // namespace pare
