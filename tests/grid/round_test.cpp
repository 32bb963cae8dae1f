// Rounding: strips against the plain questions nearest() and value(), and those against all codes.
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <algorithm>
#include <set>

#include "pare/base/float_formats.h"
#include "pare/grid/lattice.h"
#include "tests/grid/grids.h"

namespace pare {
namespace {

using namespace test;

TEST(Strip, LoadsLanesAndStoresThemBack) {
  const Matrix w = random_weights(39, 70, 1);
  for (int rows : {1, 3, 4, 7, 16})
    for (int64_t columns : {1, 3, 4, 31, 64}) {
      std::vector<float> lanes(static_cast<size_t>(columns * kLanes), 99.0f);
      Strip strip{lanes.data(), 23, rows, 5, 5 + columns};
      load_strip(w, strip);
      for (int64_t c = 0; c < columns; ++c)
        for (int r = 0; r < kLanes; ++r)
          ASSERT_EQ(lanes[static_cast<size_t>(c * kLanes + r)], r < rows ? w(23 + r, 5 + c) : 0);
      Matrix out(39, 70, -1.0f);
      store_strip(strip, out.data(), out.cols());
      for (int64_t r = 0; r < 39; ++r)
        for (int64_t c = 0; c < 70; ++c) {
          const bool inside = r >= 23 && r < 23 + rows && c >= 5 && c < 5 + columns;
          ASSERT_EQ(out(r, c), inside ? w(r, c) : -1.0f);
        }
    }
}

TEST(Strip, RowsBeyondTheMatrixBecomeZero) {
  const Matrix w = random_weights(5, 8, 2);
  std::vector<float> lanes(8 * kLanes, 99.0f);
  Strip strip{lanes.data(), 0, 16, 0, 8};
  load_strip(w, strip);
  for (int64_t c = 0; c < 8; ++c)
    for (int64_t r = 0; r < kLanes; ++r) EXPECT_EQ(lanes[static_cast<size_t>(c * kLanes + r)], r < 5 ? w(r, c) : 0);
}

class EveryGridRounds : public testing::TestWithParam<Grid> {};
INSTANTIATE_TEST_SUITE_P(Grids, EveryGridRounds, testing::ValuesIn(all_grids()), grid_label);
// Where every code is chosen for itself, and where several are chosen together.
class EveryScalarGridRounds : public testing::TestWithParam<Grid> {};
INSTANTIATE_TEST_SUITE_P(Grids, EveryScalarGridRounds, testing::ValuesIn(grids_of_step(true)), grid_label);
class EveryLatticeRounds : public testing::TestWithParam<Grid> {};
INSTANTIATE_TEST_SUITE_P(Grids, EveryLatticeRounds, testing::ValuesIn(grids_of_step(false)), grid_label);

TEST_P(EveryScalarGridRounds, NearestIsTheNearestOfAllCodes) {
  const Matrix w = random_weights(6, 256, 3);
  const Quantized q = quantized(GetParam(), w, {});
  std::mt19937 random(4);
  std::uniform_real_distribution<float> beyond(-1.5f, 1.5f);
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t c = 0; c < 256; c += 3)
      for (float x : {w(r, c), beyond(random), 0.0f}) {
        const float miss = std::abs(q.value(r, c, q.nearest(r, c, x)) - x);
        float least = 1e30f;
        for (int code = 0; code < levels_of(GetParam()); ++code)
          least = std::min(least, std::abs(q.value(r, c, static_cast<uint8_t>(code)) - x));
        ASSERT_LE(miss, least + 2e-6f * std::abs(x) + 1e-9f) << r << " " << c << " " << x;
      }
}

TEST_P(EveryScalarGridRounds, CodesOfValuesAreThemselves) {
  const Matrix w = random_weights(20, 256, 5);
  const Quantized q = quantized(GetParam(), w, {});
  for (int64_t r = 0; r < 20; ++r)
    for (int64_t c = 0; c < 256; c += 7)
      for (int code = 0; code < levels_of(GetParam()); ++code) {
        const float v = q.value(r, c, static_cast<uint8_t>(code));
        ASSERT_EQ(q.value(r, c, q.nearest(r, c, v)), v);
      }
}

TEST_P(EveryScalarGridRounds, CandidatesAreTheNearestCodesInOrder) {
  const Matrix w = random_weights(4, 256, 6);
  const Quantized q = quantized(GetParam(), w, {});
  const int levels = levels_of(GetParam());
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 256; c += 11) {
      const float x = 1.3f * w(r, c);
      std::vector<uint8_t> found(static_cast<size_t>(std::min(levels, 7)));
      ASSERT_EQ(q.candidates(r, c, {&x, 1}, found), std::ssize(found));
      std::vector<float> misses;
      for (int code = 0; code < levels; ++code)
        misses.push_back(std::abs(q.value(r, c, static_cast<uint8_t>(code)) - x));
      std::sort(misses.begin(), misses.end());
      for (size_t i = 0; i < found.size(); ++i)
        ASSERT_NEAR(std::abs(q.value(r, c, found[i]) - x), misses[i], 1e-6f * std::abs(x) + 1e-9f);
      ASSERT_EQ(std::set<uint8_t>(found.begin(), found.end()).size(), found.size());
      std::vector<uint8_t> all(300);
      ASSERT_EQ(q.candidates(r, c, {&x, 1}, all), levels);
    }
}

// The matrix has rows that are no multiple of 16, and the strip is offered in one piece, column by column, and by odd
// numbers of columns.
TEST_P(EveryScalarGridRounds, StripsAgreeWithNearestAndValueHoweverTheyAreCut) {
  const Matrix w = random_weights(21, 512, 7);
  Quantized q(GetParam(), w.shape());
  fit_all(q, w, {});
  const Matrix values = round_all(q, w);
  for (int64_t r = 0; r < 21; ++r)
    for (int64_t c = 0; c < 512; ++c) {
      ASSERT_EQ(int{q.codes(r, c)}, int{q.nearest(r, c, w(r, c))});
      ASSERT_EQ(values(r, c), q.value(r, c));
      ASSERT_EQ(std::signbit(values(r, c)), std::signbit(q.value(r, c)));
    }
  ASSERT_EQ(dequantize(q), values);
  const auto whole = q.codes;
  for (int64_t piece : {1, 5, 17}) {
    q.codes = Plane<uint8_t>(21, 512, 255);
    std::vector<float> lanes(512 * kLanes);
    for (int64_t row : {0, 16})
      for (int64_t window = 0; window < q.windows(); ++window)
        for (int64_t first = window * q.window(); first < (window + 1) * q.window(); first += piece) {
          Strip strip{lanes.data() + 1, row, row ? 5 : 16, first, std::min(first + piece, (window + 1) * q.window())};
          load_strip(w, strip);
          q.round(strip);
        }
    ASSERT_EQ(q.codes, whole) << piece;
  }
}

// ---- lattices

// All ways to fill the step at (row, col), by brute force: the values of the nearest under plain distance.
float least_distance(const Quantized& q, int64_t row, int64_t col, const float* x) {
  const LatticeTraits& t = traits(std::get<LatticeSpec>(q.grid()));
  const LatticeBook& book = t.book();
  float least = 1e30f;
  uint8_t codes[8];
  const uint32_t minuses = t.signs == LatticeTraits::Signs::shift ? 2 : 1u << t.step;
  for (uint32_t minus = 0; minus < minuses; ++minus) {
    if (t.shift_per_run && (minus != 0) != (minus_of(t, q.codes.row(row) + col, 1) != 0)) continue;
    float sum = 0;
    for (int part = 0; part < t.step; part += book.dims) {  // parts are independent once the signs are given
      float nearest = 1e30f;
      for (int p = 0; p < book.points; ++p) {
        codes_of_point(t, p, minus >> part, codes + part);
        float miss = 0;
        for (int j = part; j < part + book.dims; ++j) miss += std::pow(x[j] - q.value(row, col + j, codes[j]), 2.0f);
        nearest = std::min(nearest, miss);
      }
      sum += nearest;
    }
    codes_of_point(t, 0, minus, codes);
    if (book.dims < t.step) codes_of_point(t, 0, minus >> book.dims, codes + book.dims);
    if (holds(t, codes) && sum < least) least = sum;
  }
  return least;
}

bool lies_on_lattice(const Quantized& q) {
  const LatticeTraits& t = traits(std::get<LatticeSpec>(q.grid()));
  for (int64_t r = 0; r < q.shape().rows; ++r)
    for (int64_t c = 0; c < q.shape().cols; c += t.step)
      if (!holds(t, q.codes.row(r) + c)) return false;
  return true;
}

TEST_P(EveryLatticeRounds, EveryStepIsNearlyTheNearestPoint) {
  const Matrix w = random_weights(20, 256, 61);
  Quantized q(GetParam(), w.shape());
  fit_all(q, w, {});
  const Matrix values = round_all(q, w);
  EXPECT_EQ(dequantize(q), values);
  EXPECT_TRUE(lies_on_lattice(q));
  const LatticeTraits& t = traits(std::get<LatticeSpec>(GetParam()));
  double ours = 0, best = 0;
  for (int64_t r = 0; r < 2; ++r)
    for (int64_t c = 0; c < 256; c += t.step) {
      double miss = 0;
      for (int64_t j = c; j < c + t.step; ++j) miss += std::pow(double{values(r, j)} - double{w(r, j)}, 2);
      const double least = least_distance(q, r, c, w.row(r) + c);
      if (t.signs == LatticeTraits::Signs::free) {
        ASSERT_NEAR(miss, least, 1e-4 * least + 1e-12);
      }
      ours += miss;
      best += least;
    }
  // A run of iq1_s has one shift; which sign to flip is chosen before the point.
  EXPECT_LE(ours, best * (t.shift_per_run ? 1.3 : 1.05));
}

TEST_P(EveryLatticeRounds, ImportanceDecidesWithinAStep) {
  const Matrix w = random_weights(16, 256, 62);
  const std::vector<float> importance = random_importance(256, 63);
  Quantized q(GetParam(), w.shape());
  fit_all(q, w, {Search::error, importance, false});
  const Matrix alike = round_all(q, w);
  std::vector<float> lanes(256 * kLanes);
  Strip strip{lanes.data(), 0, 16, 0, 256, importance.data()};
  load_strip(w, strip);
  q.round(strip);
  EXPECT_TRUE(lies_on_lattice(q));
  EXPECT_LT(squared_error(w, dequantize(q), importance), squared_error(w, alike, importance));
}

TEST_P(EveryLatticeRounds, SingleStepsAndWholeWindowsAgree) {
  const Matrix w = random_weights(21, 256, 64);
  Quantized q(GetParam(), w.shape());
  fit_all(q, w, {});
  round_all(q, w);
  const auto whole = q.codes;
  q.codes = Plane<uint8_t>(21, 256, 1);
  std::vector<float> lanes(8 * kLanes);
  for (const int64_t row : {0, 16})
    for (int64_t c = 0; c < 256; c += q.step()) {
      Strip strip{lanes.data(), row, row ? 5 : 16, c, c + q.step()};
      load_strip(w, strip);
      q.round(strip);
    }
  EXPECT_EQ(q.codes, whole);
}

TEST_P(EveryLatticeRounds, NearestLeavesThePointOnTheLattice) {
  const Matrix w = random_weights(3, 256, 65);
  Quantized q = quantized(GetParam(), w, {});
  int moved = 0;
  for (int64_t r = 0; r < 3; ++r)
    for (int64_t c = 0; c < 256; ++c) {
      const float x = 1.7f * w(r, c);
      const uint8_t before = q.codes(r, c), code = q.nearest(r, c, x);
      EXPECT_LE(std::abs(q.value(r, c, code) - x), std::abs(q.value(r, c, before) - x));
      moved += code != before;
      q.set(r, c, code);
    }
  EXPECT_GT(moved, 0);
  EXPECT_TRUE(lies_on_lattice(q));
}

TEST_P(EveryLatticeRounds, CandidatesComeNearestFirst) {
  const Matrix w = random_weights(2, 256, 66);
  Quantized q = quantized(GetParam(), w, {});
  const auto step = static_cast<size_t>(q.step());
  for (int64_t c = 0; c < 256; c += q.step()) {
    std::vector<uint8_t> codes(5 * step);
    const float* x = w.row(1) + c;
    ASSERT_EQ(q.candidates(1, c, {x, step}, codes), 5);
    double last = 0;
    for (size_t i = 0; i < 5; ++i) {
      double miss = 0;
      for (size_t j = 0; j < step; ++j) {
        const uint8_t code = codes[i * step + j];
        miss += std::pow(double{x[j]} - double{q.value(1, c + static_cast<int64_t>(j), code)}, 2);
        q.set(1, c + static_cast<int64_t>(j), code);
      }
      EXPECT_GE(miss, last * 0.9999);
      last = miss;
      if (i == 0) {
        EXPECT_NEAR(miss, least_distance(q, 1, c, x), 1e-3 * miss + 1e-12);
      }
    }
  }
  EXPECT_TRUE(lies_on_lattice(q));
}

TEST_P(EveryLatticeRounds, HugeAndBrokenWeightsHaveCodes) {
  const Matrix w = random_weights(16, 256, 67);
  Quantized q = quantized(GetParam(), w, {});
  std::vector<float> lanes(static_cast<size_t>(q.step()) * kLanes);
  for (const float x : {INFINITY, -INFINITY, NAN, 3e38f, -3e38f}) {
    std::fill(lanes.begin(), lanes.end(), x);
    q.round({lanes.data(), 0, 16, 0, q.step()});
    EXPECT_TRUE(lies_on_lattice(q)) << x;
  }
}

// ---- all grids

TEST_P(EveryGridRounds, ValuesGoToOriginalPlaces) {
  const Matrix w = random_weights(17, 256, 8);
  Quantized q = quantized(GetParam(), w, {});
  const Matrix plain = dequantize(q);
  q.order.resize(256);
  for (int32_t c = 0; c < 256; ++c) q.order[static_cast<size_t>(c)] = (c * 77 + 5) % 256;
  const Matrix placed = dequantize(q);
  for (int64_t r = 0; r < 17; ++r)
    for (int64_t c = 0; c < 256; ++c) ASSERT_EQ(placed(r, q.order[static_cast<size_t>(c)]), plain(r, c));
  std::vector<float> rows(3 * 256);
  dequantize_rows(q, 9, 12, rows.data());
  for (int64_t i = 0; i < 3 * 256; ++i) ASSERT_EQ(rows[static_cast<size_t>(i)], placed(9 + i / 256, i % 256));
}

TEST_P(EveryScalarGridRounds, HugeAndBrokenWeightsHaveCodes) {
  const Matrix w = random_weights(16, 256, 9);
  Quantized q = quantized(GetParam(), w, {});
  const int top = levels_of(GetParam()) - 1;
  const float bad[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f};
  std::vector<float> lanes(kLanes);
  for (float x : bad) {
    EXPECT_LE(int{q.nearest(0, 0, x)}, top);
    std::fill(lanes.begin(), lanes.end(), x);
    q.round({lanes.data(), 0, 16, 0, 1});
    for (int64_t r = 0; r < 16; ++r) EXPECT_LE(int{q.codes(r, 0)}, top);
  }
}

TEST_P(EveryGridRounds, EveryInstructionSetGivesTheSameBytes) {
  const Matrix w = random_weights(13, 256, 10);
  const std::vector<float> importance = random_importance(256, 11);
  const FitHow hows[] = {{Search::range, {}, false}, {Search::error, importance, true}};
  std::vector<Quantized> first;
  int tried = 0;
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    for (size_t i = 0; i < std::size(hows); ++i) {
      Quantized q = quantized(GetParam(), w, hows[i]);
      if (!tried) {
        first.push_back(std::move(q));
        continue;
      }
      EXPECT_EQ(q.codes, first[i].codes) << hwy::TargetName(target);
      EXPECT_EQ(dequantize(q), dequantize(first[i])) << hwy::TargetName(target);
    }
    ++tried;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
#if defined(__x86_64__)
  EXPECT_GE(tried, 2) << "only one instruction set: nothing was compared";
#endif
}

}  // namespace
}  // namespace pare
