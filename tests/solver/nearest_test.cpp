#include <gtest/gtest.h>

#include <limits>

#include "pare/base/error.h"
#include "tests/solver/problems.h"

namespace pare {
namespace {

const Grid kGrids[] = {AffineSpec{4, 32, false, 0},
                       AffineSpec{3, 0, true, 0},
                       BlockSpec{BlockSpec::Type::q4_0},
                       BlockSpec{BlockSpec::Type::q8_0},
                       SuperBlockSpec{SuperBlockSpec::Type::q4_k},
                       SuperBlockSpec{SuperBlockSpec::Type::q6_k}};

TEST(Nearest, EveryCodeIsTheNearestForTheStoredParameters) {
  const Matrix w = test::make_problem(37, 512).w;
  for (const Grid& grid : kGrids) {
    const Quantized q = pare::round_to_nearest(w, grid);
    EXPECT_TRUE(q.order.empty());
    for (int64_t r = 0; r < w.rows(); ++r)
      for (int64_t c = 0; c < w.cols(); ++c)
        ASSERT_EQ(q.codes(r, c), q.nearest(r, c, w(r, c))) << name_of(grid) << " at " << r << ", " << c;
  }
}

TEST(Nearest, ParametersAreThoseOfAFitThatKnowsNearestFollows) {
  const Matrix w = test::make_problem(20, 512).w;
  for (const Grid& grid : kGrids) {
    const Quantized q = pare::round_to_nearest(w, grid);
    Quantized fitted(grid, w.shape());
    for (int64_t i = 0; i < fitted.windows(); ++i) fitted.fit(i, w, {.nearest_follows = true});
    for (int64_t r = 0; r < w.rows(); ++r)
      for (int64_t i = 0; i < q.windows(); ++i)
        for (int p = 0; p < q.parameters(); ++p)
          ASSERT_EQ(q.parameter(r, i, p).value, fitted.parameter(r, i, p).value) << name_of(grid);
  }
}

TEST(Nearest, DoesNotDependOnThreads) {
  const Matrix w = test::make_problem(70, 256).w;
  for (const Grid& grid : kGrids) {
    Matrix one;
    test::with_threads([&](int count) {
      const Matrix values = dequantize(pare::round_to_nearest(w, grid));
      if (count == 1) one = values;
      EXPECT_EQ(values, one) << name_of(grid) << ", threads: " << count;
    });
  }
}

TEST(Nearest, RefusesWeightsThatAreNotFinite) {
  Matrix w = test::make_problem(5, 64).w;
  w(3, 17) = std::numeric_limits<float>::infinity();
  try {
    pare::round_to_nearest(w, AffineSpec{4, 32, true, 0});
    FAIL() << "accepted infinity";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::bad_input);
    EXPECT_NE(e.info().where.find("row 3, column 17"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace pare
