// Moving a matrix onto another grid: which grids contain which, and what is said about the rest.
#include "pare/grid/embed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "pare/base/float_formats.h"
#include "tests/grid/grids.h"

namespace pare::test {
namespace {

const Grid kQ4_0 = BlockSpec{BlockSpec::Type::q4_0}, kQ8_0 = BlockSpec{BlockSpec::Type::q8_0};
Grid affine(int bits, int64_t group, bool symmetric, int lowest_zero = 0) {
  return AffineSpec{.bits = bits, .group = group, .symmetric = symmetric, .lowest_zero = lowest_zero};
}
Quantized sample(const Grid& grid, unsigned seed = 5) {
  FitHow how;
  how.nearest_follows = true;
  return quantized(grid, random_weights(20, 512, seed), how);
}

class EmbedIn : public testing::TestWithParam<Grid> {};
INSTANTIATE_TEST_SUITE_P(Grids, EmbedIn, testing::ValuesIn(all_grids()), grid_label);

TEST_P(EmbedIn, ItsOwnGridNothingChanges) {
  const Quantized q = sample(GetParam());
  const Embedded same = embed(q, q.grid());
  EXPECT_EQ(same.changed, 0);
  EXPECT_TRUE(same.q.codes == q.codes);
  EXPECT_TRUE(dequantize(same.q) == dequantize(q));
}

// Rows in another order, and fewer of them.
TEST_P(EmbedIn, RowsAreTaken) {
  const Quantized q = sample(GetParam());
  const std::vector<int64_t> rows = {7, 0, 19, 3};
  const Matrix all = dequantize(q), some = dequantize(embed(q, q.grid(), rows).q);
  ASSERT_EQ(some.rows(), 4);
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < all.cols(); ++c) ASSERT_EQ(some(r, c), all(rows[static_cast<size_t>(r)], c));
}

// Whatever the grid, `changed` counts exactly the values that differ.
TEST_P(EmbedIn, ChangesAreCounted) {
  const Quantized q = sample(affine(4, 32, false));
  const Embedded moved = embed(q, GetParam());
  EXPECT_EQ(moved.changed, count_changed(moved.q, dequantize(q)));
  const Matrix wanted = dequantize(q), got = dequantize(moved.q);
  int64_t different = 0;
  for (int64_t i = 0; i < wanted.size(); ++i) different += wanted.data()[i] != got.data()[i] ? 1 : 0;
  EXPECT_EQ(moved.changed, different);
}

TEST(Embed, GridsThatContainOthers) {
  const std::pair<Grid, Grid> contained[] = {
      {affine(4, 32, true), kQ4_0},
      {affine(4, 128, true), kQ4_0},
      {affine(8, 32, true), kQ8_0},
      {kQ8_0, affine(8, 32, true)},
      {kQ4_0, affine(4, 32, true)},
      {affine(2, 64, true), kQ4_0},
      {affine(4, 128, true), affine(8, 32, true)},
      {affine(4, 128, true), affine(4, 128, false)},
      {affine(4, 128, false), kQ8_0},
      {affine(3, 0, true), affine(4, 64, true)},
      {kQ4_0, kQ8_0},
      {affine(4, 64, false, 1), affine(4, 64, false)},
  };
  for (const auto& [from, to] : contained) {
    const Quantized q = sample(from);
    const Embedded moved = embed(q, to);
    EXPECT_EQ(moved.changed, 0) << name_of(from) << " in " << name_of(to);
    EXPECT_TRUE(dequantize(moved.q) == dequantize(q)) << name_of(from) << " in " << name_of(to);
  }
}

TEST(Embed, GridsThatDoNot) {
  const std::pair<Grid, Grid> others[] = {{affine(4, 32, false), affine(3, 32, false)},
                                          {affine(4, 32, true), affine(4, 128, true)},
                                          {kQ8_0, kQ4_0},
                                          {affine(4, 32, false), kQ4_0}};
  for (const auto& [from, to] : others) {
    const Quantized q = sample(from);
    const Embedded moved = embed(q, to);
    EXPECT_GT(moved.changed, 0) << name_of(from) << " in " << name_of(to);
  }
}

// Some tools write negative scales; the middle is then not the smallest magnitude on both sides.
TEST(Embed, NegativeScales) {
  Quantized q = sample(affine(4, 32, true));
  for (float& s : std::get<Affine>(q.params).scale.values()) s = -s;
  for (const Grid& to : {kQ4_0, affine(4, 32, true), affine(4, 32, false)}) {
    const Embedded moved = embed(q, to);
    EXPECT_EQ(moved.changed, 0) << name_of(to);
    EXPECT_TRUE(dequantize(moved.q) == dequantize(q)) << name_of(to);
  }
}

// A zero point that the target's file has no code for: the codes move, or values change and are counted.
TEST(Embed, ZeroPointsTheTargetCannotStore) {
  Quantized q = sample(affine(4, 32, false));
  auto& p = std::get<Affine>(q.params);
  std::fill(p.zero.values().begin(), p.zero.values().end(), uint8_t{0});
  for (uint8_t& c : q.codes.values()) c = std::min<uint8_t>(c, 14);
  const Embedded shifted = embed(q, affine(4, 32, false, 1));
  EXPECT_EQ(shifted.changed, 0);
  for (const uint8_t z : std::get<Affine>(shifted.q.params).zero.values()) EXPECT_GE(z, 1);
  q.codes(3, 40) = 15;
  q.codes(3, 41) = 0;
  const Embedded mirrored = embed(q, affine(4, 32, false, 1));  // sixteen values from 0 on: the last code is the zero
  EXPECT_EQ(mirrored.changed, 0);
  EXPECT_LT(std::get<Affine>(mirrored.q.params).scale(1, 3), 0);
  EXPECT_TRUE(dequantize(mirrored.q) == dequantize(q));
}

TEST(Embed, AnOrderOfColumns) {
  Quantized q = sample(affine(4, 32, true));
  q.order.resize(512);
  std::iota(q.order.begin(), q.order.end(), 0);
  std::reverse(q.order.begin(), q.order.begin() + 32);  // within a group: undone without loss
  const Embedded undone = embed(q, kQ4_0);
  EXPECT_EQ(undone.changed, 0);
  EXPECT_TRUE(undone.q.order.empty());
  EXPECT_TRUE(dequantize(undone.q) == dequantize(q));
  const Embedded kept = embed(q, q.grid(), {}, true);
  EXPECT_EQ(kept.q.order, q.order);
  EXPECT_TRUE(kept.q.codes == q.codes);
  std::swap(q.order[0], q.order[500]);  // across groups: the window has two scales now
  EXPECT_GT(embed(q, kQ4_0).changed, 0);
  EXPECT_EQ(embed(q, q.grid(), {}, true).changed, 0);
}

}  // namespace
}  // namespace pare::test
