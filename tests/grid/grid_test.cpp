#include "pare/grid/grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pare/base/error.h"
#include "tests/grid/grids.h"

namespace pare {
namespace {

using testing::HasSubstr;

std::string refusal(const Grid& grid, Shape s) {
  try {
    check_shape(grid, s, "model.layers.3.mlp.down_proj");
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("model.layers.3.mlp.down_proj"));
    return e.what();
  }
  return "";
}

const Grid kQ4K = SuperBlockSpec{SuperBlockSpec::Type::q4_k}, kQ40 = BlockSpec{BlockSpec::Type::q4_0};

TEST(Grid, NamesAreThoseOfRecipes) {
  EXPECT_EQ(name_of(AffineSpec{4, 128, true, 0}), "int4-g128-sym");
  EXPECT_EQ(name_of(AffineSpec{3, 0, false, 1}), "int3-row-asym");
  EXPECT_EQ(name_of(kQ40), "q4_0");
  EXPECT_EQ(name_of(BlockSpec{BlockSpec::Type::q8_0}), "q8_0");
  EXPECT_EQ(name_of(kQ4K), "q4_k");
  EXPECT_EQ(name_of(SuperBlockSpec{SuperBlockSpec::Type::q6_k}), "q6_k");
}

TEST(Grid, BitsCountCodesAndStoredParameters) {
  const Shape s{512, 1024};
  EXPECT_DOUBLE_EQ(bits_per_weight(AffineSpec{4, 128, true, 0}, s), 4 + 16.0 / 128);
  EXPECT_DOUBLE_EQ(bits_per_weight(AffineSpec{4, 128, false, 0}, s), 4 + 20.0 / 128);
  EXPECT_DOUBLE_EQ(bits_per_weight(AffineSpec{8, 0, true, 0}, s), 8 + 16.0 / 1024);
  EXPECT_DOUBLE_EQ(bits_per_weight(kQ40, s), 18 * 8 / 32.0);
  EXPECT_DOUBLE_EQ(bits_per_weight(BlockSpec{BlockSpec::Type::q8_0}, s), 34 * 8 / 32.0);
  EXPECT_DOUBLE_EQ(bits_per_weight(kQ4K, s), 144 * 8 / 256.0);
  EXPECT_DOUBLE_EQ(bits_per_weight(SuperBlockSpec{SuperBlockSpec::Type::q6_k}, s), 210 * 8 / 256.0);
}

TEST(Grid, WindowsAreGroupsAndBlocks) {
  EXPECT_EQ(window_of(AffineSpec{4, 64, true, 0}, 512), 64);
  EXPECT_EQ(window_of(AffineSpec{4, 0, true, 0}, 512), 512);
  EXPECT_EQ(window_of(kQ40, 512), 32);
  EXPECT_EQ(window_of(kQ4K, 512), 256);
  for (const Grid& grid : test::all_grids()) {
    const Quantized q(grid, {3, 512});
    EXPECT_EQ(q.window(), window_of(grid, 512));
    EXPECT_EQ(q.windows() * q.window(), 512);
    EXPECT_EQ(q.shape(), (Shape{3, 512}));
  }
}

TEST(Grid, RefusesShapesWithTheAlternative) {
  EXPECT_EQ(refusal(AffineSpec{4, 128, true, 0}, {8, 256}), "");
  EXPECT_THAT(refusal(AffineSpec{4, 128, true, 0}, {8, 192}), HasSubstr("group size of 64"));
  EXPECT_THAT(refusal(AffineSpec{4, 128, true, 0}, {8, 7}), HasSubstr("0 (the whole row)"));
  EXPECT_EQ(refusal(AffineSpec{4, 0, true, 0}, {8, 7}), "");
  EXPECT_THAT(refusal(kQ4K, {8, 4864 - 32}), HasSubstr("multiple of 256"));
  EXPECT_THAT(refusal(kQ4K, {8, 4864 - 32}), HasSubstr("blocks of 32"));
  EXPECT_THAT(refusal(kQ40, {8, 100}), HasSubstr("f16"));
  EXPECT_THAT(refusal(AffineSpec{9, 128, true, 0}, {8, 256}), HasSubstr("2 to 8 bits"));
  EXPECT_THAT(refusal(AffineSpec{1, 128, true, 0}, {8, 256}), HasSubstr("2 to 8 bits"));
  EXPECT_THAT(refusal(AffineSpec{4, -3, true, 0}, {8, 256}), HasSubstr("-3"));
  EXPECT_THAT(refusal(AffineSpec{4, 32, false, 15}, {8, 256}), HasSubstr("zero"));
  EXPECT_THAT(refusal(kQ40, {0, 32}), HasSubstr("empty"));
  EXPECT_FALSE(divides(kQ4K, 128));
  EXPECT_TRUE(divides(kQ40, 128));
}

}  // namespace
}  // namespace pare
