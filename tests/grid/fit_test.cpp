// Fits: what the range is, that a search never loses to it, that everything stored is exact in its precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "pare/base/float_formats.h"
#include "pare/base/threads.h"
#include "tests/grid/grids.h"

namespace pare {
namespace {

using namespace test;

constexpr FitHow kRange{Search::range, {}, false}, kError{Search::error, {}, false};

class EveryGridFits : public testing::TestWithParam<Grid> {};
INSTANTIATE_TEST_SUITE_P(Grids, EveryGridFits, testing::ValuesIn(all_grids()), grid_label);

void expect_stored_exactly(const Quantized& q) {
  for (int64_t row = 0; row < q.shape().rows; ++row)
    for (int64_t window = 0; window < q.windows(); ++window)
      for (int i = 0; i < q.parameters(); ++i) {
        const Parameter p = q.parameter(row, window, i);
        ASSERT_EQ(q.rounded(i, p.value), p.value) << name_of(q.grid()) << " parameter " << i;
        ASSERT_LE(p.lowest, p.value);
        ASSERT_GE(p.highest, p.value);
      }
}

TEST_P(EveryGridFits, ParametersAreExactAsStored) {
  const Matrix w = random_weights(19, 512, 21);
  for (const FitHow& how : {kRange, kError}) expect_stored_exactly(quantized(GetParam(), w, how));
}

// Row by row and window by window, not only in sum.
TEST_P(EveryGridFits, SearchNeverLosesToTheRange) {
  const Matrix w = random_weights(19, 512, 22);
  const std::vector<float> importance = random_importance(512, 23);
  for (std::span<const float> weights : {std::span<const float>(), std::span<const float>(importance)}) {
    const Matrix range = dequantize(quantized(GetParam(), w, kRange));
    const Matrix found = dequantize(quantized(GetParam(), w, {Search::error, weights, false}));
    const int64_t window = window_of(GetParam(), 512);
    for (int64_t row = 0; row < 19; ++row)
      for (int64_t first = 0; first < 512; first += window) {
        const auto part = [&](MatrixView m) {
          return m.rows_between(row, row + 1).cols_between(first, first + window);
        };
        const auto slice =
            weights.empty() ? weights : weights.subspan(static_cast<size_t>(first), static_cast<size_t>(window));
        ASSERT_LE(squared_error(part(w), part(found), slice), squared_error(part(w), part(range), slice) * 1.00001);
      }
    const double gain = squared_error(w, found, weights) / squared_error(w, range, weights);
    EXPECT_LT(gain, levels_of(GetParam()) <= 16 ? 0.93 : 1.0) << name_of(GetParam());
  }
}

TEST_P(EveryGridFits, ImportanceLowersTheWeightedError) {
  const Matrix w = random_weights(32, 512, 24);
  const std::vector<float> importance = random_importance(512, 25);
  const Matrix alike = dequantize(quantized(GetParam(), w, kError));
  const Matrix weighted = dequantize(quantized(GetParam(), w, {Search::error, importance, false}));
  EXPECT_LT(squared_error(w, weighted, importance), squared_error(w, alike, importance));
  EXPECT_LT(squared_error(w, alike), squared_error(w, weighted));
}

TEST_P(EveryGridFits, ImportanceHasNoUnit) {
  const Matrix w = random_weights(16, 256, 26);
  std::vector<float> importance = random_importance(256, 27);
  const Quantized q = quantized(GetParam(), w, {Search::error, importance, false});
  for (float& x : importance) x *= 0x1p-40f;
  EXPECT_EQ(quantized(GetParam(), w, {Search::error, importance, false}).codes, q.codes);
  std::fill(importance.begin(), importance.end(), 0.0f);  // nothing counts: as if all counted alike
  EXPECT_EQ(quantized(GetParam(), w, {Search::error, importance, false}).codes, quantized(GetParam(), w, kError).codes);
}

TEST_P(EveryGridFits, ThreadsAndStripsChangeNothing) {
  const Matrix w = random_weights(40, 512, 28);
  const Quantized q = quantized(GetParam(), w, kError);
  const int before = threads();
  set_threads(3);
  EXPECT_EQ(quantized(GetParam(), w, kError).codes, q.codes);
  set_threads(before);
  Quantized by_strip(GetParam(), w.shape());
  std::vector<float> lanes(static_cast<size_t>(by_strip.window() * kLanes));
  for (int64_t row = 0; row < 40; row += kLanes)
    for (int64_t first = 0; first < 512; first += by_strip.window()) {
      const int rows = static_cast<int>(std::min<int64_t>(kLanes, 40 - row));
      Strip strip{lanes.data(), row, rows, first, first + by_strip.window()};
      load_strip(w, strip);
      by_strip.fit(strip, kError);
      by_strip.round(strip);
    }
  EXPECT_EQ(dequantize(by_strip), dequantize(q));
}

TEST_P(EveryGridFits, FitsOneWindowOnly) {
  const Matrix w = random_weights(16, 512, 29);
  if (window_of(GetParam(), 512) == 512) return;
  Quantized q = quantized(GetParam(), w, kError);
  const Matrix before = dequantize(q);
  const Matrix other = random_weights(16, 512, 30);
  q.fit(1, other, kError);
  const Matrix after = dequantize(q);
  for (int64_t r = 0; r < 16; ++r)
    for (int64_t c = 0; c < 512; ++c) ASSERT_TRUE(c / q.window() == 1 || after(r, c) == before(r, c));
}

// Rows such as models hold them and such as nobody wants: every one must come out close to what it was.
TEST_P(EveryGridFits, OddRowsSurvive) {
  Matrix w(16, 256);
  for (int64_t c = 0; c < 256; ++c) {
    const auto x = static_cast<float>(c);
    w(1, c) = 0.0125f;
    w(2, c) = -0.02f;
    w(3, c) = c == 40 ? 0.5f : 0;
    w(4, c) = c % 2 ? 0.03125f : -0.03125f;
    w(5, c) = 1e-6f * std::sin(x);
    w(6, c) = 1e-20f * std::sin(x);
    w(7, c) = 0.01f + 0.02f * std::abs(std::sin(x));
    w(8, c) = -w(7, c);
    w(9, c) = c < 128 ? 0 : std::sin(x);
    w(10, c) = (x - 128) / 128;
    w(11, c) = 8 * std::sin(x);
    w(12, c) = 6e4f * std::sin(x);
    w(13, c) = c % 2 ? 0 : std::cos(x);
    w(14, c) = c % 32 ? 1e-4f * std::sin(x) : 1.0f;
    w(15, c) = 1e-38f;
  }
  const int levels = levels_of(GetParam());
  const auto* table = std::get_if<CodebookSpec>(&GetParam());
  const bool e4m3 = table && table->scale == ScaleKind::ue4m3;  // steps of 2^-9 at first, ends at 448
  const float coarse = e4m3 ? 6 * 0x1p-10f : 2e-5f, farthest = e4m3 ? 6 * 448 : 1e9f;
  for (const FitHow& how : {kRange, kError, FitHow{Search::error, {}, true}}) {
    const Quantized q = quantized(GetParam(), w, how);
    expect_stored_exactly(q);
    const Matrix v = dequantize(q);
    for (int64_t r = 0; r < 16; ++r) {
      float largest = 0, miss = 0;
      for (int64_t c = 0; c < 256; ++c) {
        largest = std::max(largest, std::abs(w(r, c)));
        miss = std::max(miss, std::abs(v(r, c) - w(r, c)));
      }
      if (how.search == Search::range && largest <= farthest && step_of(GetParam()) == 1) {
        ASSERT_LE(miss, 2.6f * largest / static_cast<float>(levels - 1) + coarse)
            << name_of(GetParam()) << " row " << r;
      } else {
        ASSERT_LE(miss, 1.01f * largest + coarse);
      }
    }
    for (int64_t c = 0; c < 256; ++c) ASSERT_EQ(v(0, c), 0);
  }
}

TEST_P(EveryGridFits, BrokenWeightsNeitherCrashNorStoreBrokenParameters) {
  Matrix w = random_weights(16, 256, 31);
  for (int64_t r = 0; r < 16; ++r)
    for (int64_t c = 0; c < 256; ++c)
      if (r == 15 || (c + r) % 9 == 0)
        w(r, c) = std::array{NAN, INFINITY, -INFINITY, 3e38f, -3e38f}[static_cast<size_t>((r + c) % 5)];
  std::vector<float> importance(256, NAN);
  for (const FitHow& how : {kRange, kError, FitHow{Search::error, importance, true}})
    expect_stored_exactly(quantized(GetParam(), w, how));
}

// ---- what the range is

TEST(Range, SymmetricUsesBothSidesEvenWhenAllWeightsArePositive) {
  Matrix w(2, 32);
  for (int64_t c = 0; c < 32; ++c) w(0, c) = 0.5f + static_cast<float>(c) / 64, w(1, c) = -w(0, c);
  const Quantized q = quantized(AffineSpec{4, 32, true, 0}, w, kRange);
  const float largest = 0.5f + 31.0f / 64;
  for (int64_t r : {0, 1}) {
    EXPECT_EQ(q.parameter(r, 0, 0).value, round_to_f16(2 * largest / 15));
    EXPECT_EQ(std::get<Affine>(q.params).zero(0, r), 8);
  }
  EXPECT_GE(*std::min_element(q.codes.row(0), q.codes.row(0) + 32), 8);
}

TEST(Range, ZeroPointSpansZeroToTheExtremes) {
  Matrix w(3, 32, 0.0f);
  w(0, 3) = -0.3f, w(0, 9) = 1.2f;
  w(1, 3) = 0.5f, w(1, 4) = 1.5f;  // all ≥ 0: the zero point is the lowest that can be stored
  w(2, 0) = -1.0f, w(2, 1) = -0.5f;
  const Quantized plain = quantized(AffineSpec{4, 32, false, 0}, w, kRange);
  EXPECT_EQ(plain.parameter(0, 0, 0).value, round_to_f16(1.5f / 15));
  EXPECT_EQ(plain.parameter(0, 0, 1).value, 3);
  EXPECT_EQ(plain.parameter(1, 0, 1).value, 0);
  EXPECT_EQ(plain.parameter(2, 0, 1).value, 15);
  const Quantized v1 = quantized(AffineSpec{4, 32, false, 1}, w, kRange);
  EXPECT_EQ(v1.parameter(1, 0, 1).value, 1);
  EXPECT_EQ(v1.parameter(1, 0, 0).value, round_to_f16(1.5f / 14));  // still reaches the largest weight
  EXPECT_EQ(v1.parameter(1, 0, 1).lowest, 1);
}

TEST(Range, Q4_0PutsTheSignedExtremeOnTheLowestCode) {
  Matrix w(2, 32, 0.01f);
  w(0, 5) = 0.8f, w(0, 6) = -0.8f;  // the first of equal magnitude decides
  w(1, 5) = -0.4f;
  const Quantized q = quantized(BlockSpec{BlockSpec::Type::q4_0}, w, kRange);
  EXPECT_EQ(q.parameter(0, 0, 0).value, round_to_f16(0.8f / -8));
  EXPECT_EQ(q.codes(0, 5), 0);
  EXPECT_EQ(q.parameter(1, 0, 0).value, round_to_f16(0.4f / 8));
  EXPECT_EQ(q.codes(1, 5), 0);
}

// A grid that holds the weights exactly must be found by its search.
TEST(Search, FindsWeightsThatLieOnTheGrid) {
  for (const Grid& grid : all_grids()) {
    const Matrix w = dequantize(quantized(grid, random_weights(16, 256, 32), kRange));
    const Matrix again = dequantize(quantized(grid, w, kError));
    double norm = squared_error(w, Matrix(16, 256));
    EXPECT_LT(squared_error(w, again), (step_of(grid) == 1 ? 1e-5 : 1e-3) * norm) << name_of(grid);
  }
}

// What the parts of a search are worth on these weights. Results are the same on every CPU, so the bounds can lie just
// above them: a super-block without neighbouring integers or without least squares loses only 0.2 to 0.8 % and is
// noticed.
TEST(Search, GainsWhatItsPartsAreWorth) {
  const struct {
    Grid grid;
    double alike, weighted;
  } bounds[] = {{AffineSpec{2, 128, true, 0}, 0.455, 0.345},
                {AffineSpec{4, 64, true, 0}, 0.86, 0.535},
                {AffineSpec{4, 64, false, 0}, 0.90, 0.67},
                {BlockSpec{BlockSpec::Type::q4_0}, 0.90, 0.615},
                {BlockSpec{BlockSpec::Type::q8_0}, 0.84, 0.635},
                {SuperBlockSpec{SuperBlockSpec::Type::q4_k}, 0.7535, 0.4595},
                {SuperBlockSpec{SuperBlockSpec::Type::q6_k}, 0.794, 0.502}};
  const Matrix w = random_weights(19, 512, 22);
  const std::vector<float> importance = random_importance(512, 23);
  for (const auto& [grid, alike, weighted] : bounds) {
    const Matrix range = dequantize(quantized(grid, w, kRange)), found = dequantize(quantized(grid, w, kError));
    const Matrix important = dequantize(quantized(grid, w, {Search::error, importance, false}));
    EXPECT_LT(squared_error(w, found), alike * squared_error(w, range)) << name_of(grid);
    EXPECT_LT(squared_error(w, important, importance), weighted * squared_error(w, range, importance)) << name_of(grid);
  }
}

TEST(Search, LargerWeightsCountMoreWhereNearestFollows) {
  const Grid grid = SuperBlockSpec{SuperBlockSpec::Type::q4_k};
  const Matrix w = random_weights(64, 512, 34);
  const Matrix plain = dequantize(quantized(grid, w, kError));
  const Matrix follows = dequantize(quantized(grid, w, {Search::error, {}, true}));
  const auto emphasised = [&](const Matrix& v) {
    double sum = 0;
    for (int64_t r = 0; r < 64; ++r)
      for (int64_t first = 0; first < 512; first += 256) {
        double squares = 0;
        for (int64_t c = first; c < first + 256; ++c) squares += double{w(r, c)} * double{w(r, c)};
        for (int64_t c = first; c < first + 256; ++c)
          sum += std::sqrt(2 * squares / 256 + double{w(r, c)} * double{w(r, c)}) *
                 std::pow(double{w(r, c)} - double{v(r, c)}, 2);
      }
    return sum;
  };
  EXPECT_LT(emphasised(follows), emphasised(plain));
  EXPECT_GT(squared_error(w, follows), squared_error(w, plain));
}

}  // namespace
}  // namespace pare
