// GPTQ on every grid: equal to the plain column-by-column algorithm whatever the lazy block, the window, the order and
// the number of threads.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

#include "pare/base/error.h"
#include "tests/solver/problems.h"

namespace pare {
namespace {

using test::exact_error, test::make_problem, test::Problem, test::share_of_equal_codes;

GptqResult solve(const Problem& p, const Grid& grid, const GptqOptions& o) {
  return gptq(p.w, factor_hessian(p.h, window_of(grid, p.w.cols()), o), grid, o);
}
// The f32 sums of lazy blocks are grouped otherwise: now and then a weight midway between two values goes the other
// way, and takes the rest of its row with it.
void expect_nearly_equal(const Quantized& a, const Quantized& b, const Problem& p, double share = 0.98,
                         double loss = 0.003) {
  EXPECT_GT(share_of_equal_codes(a, b), share);
  const double ea = exact_error(p.w, dequantize(a), p.h), eb = exact_error(p.w, dequantize(b), p.h);
  EXPECT_NEAR(ea, eb, loss * eb);
}

struct Case {
  const char* name;
  Grid grid;
};
const Case kCases[] = {
    {"int4_g128", AffineSpec{4, 128, true, 0}},          {"int4_g32_asym", AffineSpec{4, 32, false, 0}},
    {"int3_g64_v1", AffineSpec{3, 64, false, 1}},        {"int2_row", AffineSpec{2, 0, false, 0}},
    {"int8_g256", AffineSpec{8, 256, true, 0}},          {"q4_0", BlockSpec{BlockSpec::Type::q4_0}},
    {"q8_0", BlockSpec{BlockSpec::Type::q8_0}},          {"q4_k", SuperBlockSpec{SuperBlockSpec::Type::q4_k}},
    {"q6_k", SuperBlockSpec{SuperBlockSpec::Type::q6_k}}};

class EveryGrid : public testing::TestWithParam<Case> {
 protected:
  static const Problem& problem() {
    static const Problem p = make_problem(21, 512);
    return p;
  }
};
INSTANTIATE_TEST_SUITE_P(Gptq, EveryGrid, testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(EveryGrid, EqualsThePlainAlgorithmInEveryOrder) {
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::windows, ColumnOrder::stored})
    for (const bool fixed : {false, true}) {
      SCOPED_TRACE(fmt::format("order {}, static {}", static_cast<int>(order), fixed));
      const GptqOptions o{.damp = 0.01, .order = order, .static_groups = fixed, .fit = {.search = Search::range}};
      const Quantized plain = test::plain_gptq(problem(), GetParam().grid, o);
      const Quantized got = solve(problem(), GetParam().grid, o).quantized;
      EXPECT_EQ(got.order, plain.order);
      expect_nearly_equal(got, plain, problem());
    }
}

TEST_P(EveryGrid, EqualsThePlainAlgorithmWithASearchedFit) {
  const GptqOptions o{.damp = 0.01};
  // Searches choose between nearly equal candidates: another scale in the last place changes many codes of 8 bits.
  expect_nearly_equal(solve(problem(), GetParam().grid, o).quantized, test::plain_gptq(problem(), GetParam().grid, o),
                      problem(), 0.94, 0.01);
}

TEST_P(EveryGrid, TheSizeOfTheLazyBlockChangesNothing) {
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::windows}) {
    GptqOptions o{.damp = 0.01, .block = 1, .order = order, .fit = {.search = Search::range}};
    const Quantized by_column = solve(problem(), GetParam().grid, o).quantized;
    for (const int64_t block : {7, 100, 128, 160, 1000}) {
      SCOPED_TRACE(fmt::format("order {}, block {}", static_cast<int>(order), block));
      o.block = block;
      expect_nearly_equal(solve(problem(), GetParam().grid, o).quantized, by_column, problem());
    }
  }
}

TEST_P(EveryGrid, LosesLessThanRoundingToNearest) {
  for (const Search search : {Search::range, Search::error}) {
    const FitHow fit{.search = search};
    const Quantized nearest = pare::round_to_nearest(problem().w, GetParam().grid, fit);
    const Quantized solved = solve(problem(), GetParam().grid, {.damp = 0.01, .fit = fit}).quantized;
    EXPECT_LT(exact_error(problem().w, dequantize(solved), problem().h),
              0.7 * exact_error(problem().w, dequantize(nearest), problem().h));
  }
}

TEST_P(EveryGrid, ReportsTheLossOfTheDampedHessian) {
  const GptqOptions o{.damp = 0.05};
  const GptqResult result = solve(problem(), GetParam().grid, o);
  const double exact = exact_error(problem().w, dequantize(result.quantized), test::damped(problem().h, 0.05));
  EXPECT_NEAR(result.loss, exact, 1e-3 * exact);
}

TEST_P(EveryGrid, ThreadsDoNotChangeAnyBit) {
  for (const ColumnOrder order : {ColumnOrder::windows, ColumnOrder::stored}) {
    const GptqOptions o{.damp = 0.01, .order = order};
    GptqResult one;
    test::with_threads([&](int count) {
      const GptqResult result = solve(problem(), GetParam().grid, o);
      if (count == 1) one = result;
      EXPECT_EQ(result.quantized.codes, one.quantized.codes) << count;
      EXPECT_EQ(dequantize(result.quantized), dequantize(one.quantized)) << count;
      EXPECT_EQ(result.loss, one.loss) << count;
    });
  }
}

TEST_P(EveryGrid, WithoutCorrelationItIsRoundingToNearest) {
  Problem p{problem().w, Matrix(512, 512)};
  for (int64_t i = 0; i < 512; ++i) p.h(i, i) = 1;
  const GptqResult result = solve(p, GetParam().grid, {.damp = 0});
  for (int64_t r = 0; r < p.w.rows(); ++r)
    for (int64_t c = 0; c < p.w.cols(); ++c)
      ASSERT_EQ(result.quantized.codes(r, c), result.quantized.nearest(r, c, p.w(r, c)));
}

TEST(Gptq, RowsDoNotSeeEachOther) {
  const Problem p = make_problem(40, 256);
  const Grid grid = AffineSpec{4, 64, false, 0};
  const GptqOptions o{.damp = 0.01};
  const Matrix all = dequantize(solve(p, grid, o).quantized);
  for (const int64_t first : {int64_t{0}, int64_t{16}, int64_t{23}}) {  // 23: other lanes, other strips
    const MatrixView rows = MatrixView(p.w).rows_between(first, first + 17);
    const Matrix some = dequantize(solve({copy_of(rows), p.h}, grid, o).quantized);
    EXPECT_EQ(some, copy_of(MatrixView(all).rows_between(first, first + 17))) << "rows from " << first;
  }
}

// Windows that the lazy block straddles, a short last window, a window of a whole odd row.
TEST(Gptq, WindowsAndBlocksOfAnySize) {
  const Problem p = make_problem(18, 360);
  for (const int64_t group : {8, 24, 40, 72, 120, 180, 0}) {
    const Grid grid = AffineSpec{3, group, false, 0};
    for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::windows}) {
      GptqOptions o{.damp = 0.01, .order = order, .fit = {.search = Search::range}};
      const Quantized plain = test::plain_gptq(p, grid, o);
      for (const int64_t block : {1, 25, 100, 128, 160}) {
        SCOPED_TRACE(fmt::format("group {}, order {}, block {}", group, static_cast<int>(order), block));
        o.block = block;
        expect_nearly_equal(solve(p, grid, o).quantized, plain, p);
      }
    }
  }
}

TEST(Gptq, OrdersHelpWhereChannelsDiffer) {
  const Problem p = make_problem(48, 512);
  const Grid grid = AffineSpec{3, 64, true, 0};
  std::map<ColumnOrder, double> loss;
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::windows, ColumnOrder::stored})
    loss[order] = exact_error(p.w, dequantize(solve(p, grid, {.damp = 0.01, .order = order}).quantized), p.h);
  EXPECT_LT(loss[ColumnOrder::windows], 0.95 * loss[ColumnOrder::natural]);
  EXPECT_LT(loss[ColumnOrder::stored], 0.95 * loss[ColumnOrder::natural]);
}

TEST(Gptq, StaticGroupsAreFitsOfTheOriginalWeights) {
  const Problem p = make_problem(20, 256);
  const Grid grid = AffineSpec{4, 32, false, 0};
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::windows, ColumnOrder::stored}) {
    const GptqOptions o{.order = order, .static_groups = true, .fit = {.search = Search::range}};
    const Quantized q = solve(p, grid, o).quantized;
    EXPECT_TRUE(q.order.empty());
    Quantized fitted(grid, p.w.shape());
    for (int64_t i = 0; i < fitted.windows(); ++i) fitted.fit(i, p.w, o.fit);
    EXPECT_EQ(std::get<Affine>(q.params).scale, std::get<Affine>(fitted.params).scale);
    EXPECT_EQ(std::get<Affine>(q.params).zero, std::get<Affine>(fitted.params).zero);
  }
}

// An importance that says one column of a window is all that counts must reach that column in every order.
TEST(Gptq, ImportanceFollowsItsColumn) {
  const Problem p = make_problem(32, 256);
  const int64_t column = 100;
  std::vector<float> one(256, 1e-6f);
  one[column] = 1;
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::windows, ColumnOrder::stored}) {
    Problem plain = p;  // no feedback, so that only the fit matters
    for (int64_t i = 0; i < 256; ++i)
      for (int64_t j = 0; j < 256; ++j)
        if (i != j) plain.h(i, j) = 0;
    const auto error_at = [&](std::span<const float> importance) {
      const GptqOptions o{.order = order, .fit = {.importance = importance}};
      const Matrix q = dequantize(solve(plain, AffineSpec{2, 64, true, 0}, o).quantized);
      double sum = 0;
      for (int64_t r = 0; r < 32; ++r) sum += std::abs(q(r, column) - p.w(r, column));
      return sum;
    };
    EXPECT_LT(error_at(one), 0.3 * error_at(std::vector<float>(256, 1.0f))) << static_cast<int>(order);
  }
}

TEST(Gptq, DeadColumnsBecomeZero) {
  Problem p = make_problem(20, 128);
  for (const int64_t dead : {0, 31, 127})
    for (int64_t i = 0; i < 128; ++i) p.h(dead, i) = p.h(i, dead) = 0;
  for (int64_t r = 0; r < 20; ++r) p.w(r, 31) = 1e4f;  // must not widen its group's range
  const Matrix q = dequantize(solve(p, AffineSpec{4, 32, false, 0}, {.fit = {.search = Search::range}}).quantized);
  for (int64_t r = 0; r < 20; ++r) {
    for (const int64_t dead : {0, 31, 127}) EXPECT_EQ(q(r, dead), 0);
    for (int64_t c = 0; c < 128; ++c) EXPECT_LT(std::abs(q(r, c)), 1);
  }
}

TEST(Gptq, RefusesWeightsThatAreNotFinite) {
  Problem p = make_problem(4, 64);
  p.w(2, 3) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(solve(p, AffineSpec{4, 32, true, 0}, {}), Error);
}

TEST(Gptq, RefusesAFactorMadeForAnotherOrder) {
  const Problem p = make_problem(4, 64);
  const Grid grid = AffineSpec{4, 32, true, 0};
  const HessianFactor natural = factor_hessian(p.h, 32, {.order = ColumnOrder::natural});
  EXPECT_THROW(gptq(p.w, natural, grid, {.order = ColumnOrder::windows}), std::logic_error);
  const HessianFactor other_window = factor_hessian(p.h, 64, {.order = ColumnOrder::windows});
  EXPECT_THROW(gptq(p.w, other_window, grid, {.order = ColumnOrder::windows}), std::logic_error);
  EXPECT_THROW(gptq(Matrix(4, 32), natural, grid, {.order = ColumnOrder::natural}), std::logic_error);
}

}  // namespace
}  // namespace pare
