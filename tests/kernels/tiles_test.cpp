#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/kernels/kernel.h"
#include "tests/kernels/weights.h"

namespace pare::test {
namespace {

struct Case {
  Grid grid;
  Shape shape;
};
std::string title(const Case& c) { return fmt::format("{} {}x{}", name_of(c.grid), c.shape.rows, c.shape.cols); }

AffineSpec affine(int bits, int64_t group, bool symmetric) {
  return {.bits = bits, .group = group, .symmetric = symmetric};
}
constexpr BlockSpec kQ4_0{BlockSpec::Type::q4_0}, kQ8_0{BlockSpec::Type::q8_0};
constexpr SuperBlockSpec kQ4K{SuperBlockSpec::Type::q4_k}, kQ6K{SuperBlockSpec::Type::q6_k};

// Every grid, with rows beside the sixteen of a strip and columns beside the thirty-two of a unit where it has any.
std::vector<Case> cases() {
  std::vector<Case> all = {{kQ4_0, {1, 32}}, {kQ4_0, {33, 96}},  {kQ8_0, {16, 64}}, {kQ8_0, {47, 288}},
                           {kQ4K, {5, 256}}, {kQ4K, {35, 1280}}, {kQ6K, {17, 256}}, {kQ6K, {32, 768}}};
  for (const Grid& grid : named_grids()) all.push_back({grid, {21, 512}});
  all.push_back({AffineSpec{.bits = 4, .group = 64, .biased = true}, {35, 192}});
  all.push_back({AffineSpec{.bits = 3, .group = 32, .scale = ScaleKind::bf16, .biased = true}, {21, 64}});
  all.push_back({AffineSpec{.bits = 8, .group = 0, .scale = ScaleKind::f32}, {19, 77}});
  all.push_back({AffineSpec{.bits = 5, .group = 32, .symmetric = false, .scale = ScaleKind::bf16}, {33, 96}});
  for (int bits = 2; bits <= 8; ++bits)
    for (const bool symmetric : {true, false}) {
      all.push_back({affine(bits, 0, symmetric), {19, 77}});   // whole rows, a broken unit
      all.push_back({affine(bits, 0, symmetric), {16, 1}});    // one column
      all.push_back({affine(bits, 32, symmetric), {18, 96}});  // a group per unit
      all.push_back({affine(bits, 128, symmetric), {40, 256}});
      all.push_back({affine(bits, 320, symmetric), {7, 640}});  // longer than what is read at a time
      all.push_back({affine(bits, 24, symmetric), {21, 72}});   // groups that end within units: plain
    }
  return all;
}

TEST(Tiles, ExpandsToTheValuesOfTheGridBitForBit) {
  Random random(1);
  for (const Case& c : cases())
    for (const bool ordered : {false, true}) {
      SCOPED_TRACE(title(c));
      const Quantized q = random_quantized(c.grid, c.shape, ordered, random);
      const Matrix expected = dequantize(q);
      for_instruction_sets([&] {
        const PackedMatrix w = PackedMatrix::of_quantized(q);
        Matrix got(c.shape.rows, c.shape.cols, NAN);
        w.expand_rows(0, c.shape.rows, got.data());
        EXPECT_TRUE(same_bits(got.values(), expected.values()));
      });
      const ForceKernel plain("plain");
      Matrix got(c.shape.rows, c.shape.cols, NAN);
      PackedMatrix::of_quantized(q).expand_rows(0, c.shape.rows, got.data());
      EXPECT_TRUE(same_bits(got.values(), expected.values()));
    }
}

TEST(Tiles, ExpandsAnyRunOfRows) {
  Random random(2);
  const Shape shape{53, 96};
  const Quantized q = random_quantized(kQ4_0, shape, true, random);
  const PackedMatrix w = PackedMatrix::of_quantized(q);
  for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 1}, {15, 17}, {5, 5}, {20, 52}, {52, 53}}) {
    Matrix expected(last - first, shape.cols), got(last - first, shape.cols);
    dequantize_rows(q, first, last, expected.data());
    w.expand_rows(first, last, got.data());
    EXPECT_TRUE(same_bits(got.values(), expected.values())) << first << " to " << last;
  }
}

TEST(Tiles, MultipliesLikeSumsInDouble) {
  Random random(3);
  for (const Case& c : cases())
    for (const bool ordered : {false, true}) {
      SCOPED_TRACE(title(c));
      const Quantized q = random_quantized(c.grid, c.shape, ordered, random);
      const Matrix expected = dequantize(q);
      const PackedMatrix w = PackedMatrix::of_quantized(q);
      for (const int64_t tokens : {1, 2, 5, 33}) {
        Product product(random, tokens, c.shape);
        product.by(w);
        product.expect_near(expected);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
}

TEST(Tiles, EveryInstructionSetEqualsThePlainKernel) {
  Random random(4);
  for (const Case& c : cases()) {
    SCOPED_TRACE(title(c));
    const Quantized q = random_quantized(c.grid, c.shape, false, random);
    for (const int64_t tokens : {1, 7}) {
      Product product(random, tokens, c.shape);
      Matrix plain;
      {
        const ForceKernel force("plain");
        plain = product.by(PackedMatrix::of_quantized(q));
      }
      const Matrix values = dequantize(q);
      for_instruction_sets([&] {
        product.by(PackedMatrix::of_quantized(q));
        product.expect_near(values);
      });
      product.y = plain;
      product.expect_near(values);
    }
  }
}

TEST(Tiles, WorkCutAmongThreadsGivesTheSameBits) {
  Random random(5);
  for (const Case& c : {Case{kQ4K, {600, 512}}, Case{affine(3, 64, false), {333, 896}}, Case{kQ8_0, {540, 1056}}}) {
    SCOPED_TRACE(title(c));
    const Quantized q = random_quantized(c.grid, c.shape, true, random);
    const Matrix values = dequantize(q);
    for (const int64_t tokens : {1, 3, 40, 270}) {
      Product product(random, tokens, c.shape);
      Matrix first;
      for (const int count : {1, 2, 5}) {
        const Threads use(count);
        const Matrix& y = product.by(PackedMatrix::of_quantized(q));
        if (first.empty()) first = y;
        EXPECT_TRUE(same_bits(y.values(), first.values())) << tokens << " tokens, " << count << " threads";
      }
      if (tokens == 3 || tokens == 40) product.expect_near(values);
    }
  }
}

// Tokens are cut into blocks and columns into panels; an element must not notice.
TEST(Tiles, BlocksOfTokensAndPanelsOfColumnsMeet) {
  Random random(6);
  const Shape shape{50, 2080};
  const Quantized q = random_quantized(kQ4_0, shape, false, random);
  Product product(random, 259, shape);
  product.by(PackedMatrix::of_quantized(q));
  product.expect_near(dequantize(q));
}

TEST(Tiles, OneTokensInfinityStaysItsOwn) {
  Random random(7);
  for (const Case& c : {Case{affine(4, 0, true), {19, 77}}, Case{kQ4K, {19, 256}}, Case{kQ6K, {19, 256}}})
    for (const int64_t tokens : {3, 20}) {
      const Quantized q = random_quantized(c.grid, c.shape, false, random);
      Product product(random, tokens, c.shape);
      product.x(1, 5) = std::numeric_limits<float>::infinity();
      const Matrix& y = product.by(PackedMatrix::of_quantized(q));
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t r = 0; r < c.shape.rows; ++r) EXPECT_TRUE(t == 1 || std::isfinite(y(t, r))) << t << " " << r;
    }
}

TEST(Tiles, PackingPiecewiseGivesTheSame) {
  Random random(8);
  const Shape shape{300, 8192};
  const Quantized q = random_quantized(affine(2, 128, true), shape, true, random);
  int calls = 0;
  const PackedMatrix w = PackedMatrix::of_rows(q.grid(), shape, [&](int64_t first, int64_t last) {
    ++calls;
    EXPECT_EQ(first % kLanes, 0);
    Quantized rows(q.grid(), {last - first, shape.cols});
    auto& to = std::get<Affine>(rows.params);
    const auto& from = std::get<Affine>(q.params);
    for (int64_t g = 0; g < from.scale.rows(); ++g)
      std::copy_n(from.scale.row(g) + first, last - first, to.scale.row(g));
    std::copy_n(q.codes.row(first), rows.codes.size(), rows.codes.data());
    rows.order = q.order;
    return rows;
  });
  EXPECT_GT(calls, 1);
  Product product(random, 1, shape);
  const Matrix whole = product.by(PackedMatrix::of_quantized(q));
  EXPECT_TRUE(same_bits(product.by(w).values(), whole.values()));
}

TEST(Tiles, AreAsLargeAsTheFile) {
  for (const Grid& grid : {Grid(kQ4_0), Grid(kQ8_0), Grid(kQ4K), Grid(kQ6K), Grid(affine(4, 128, true)),
                           Grid(affine(4, 128, false)), Grid(affine(3, 128, false)), Grid(affine(8, 0, false))}) {
    const Shape shape{64, 1024};
    const auto file = bits_per_weight(grid, shape) * static_cast<double>(shape.size()) / 8;
    const auto packed = static_cast<double>(tile_layout(grid, shape).bytes());
    EXPECT_LE(packed, 1.05 * file) << name_of(grid);
    EXPECT_GE(packed, 0.95 * file) << name_of(grid);
  }
}

TEST(Kernels, TheForcedOneRuns) {
  Random random(9);
  const Shape shape{64, 512};
  const Quantized q = random_quantized(kQ4K, shape, false, random);
  Product product(random, 2, shape);
  const PackedMatrix best = PackedMatrix::of_quantized(q);
  EXPECT_EQ(best.kernel(), "tile-f32");
  const Matrix by_best = product.by(best);

  const ForceKernel force("plain");
  const PackedMatrix forced = PackedMatrix::of_quantized(q);
  EXPECT_EQ(forced.kernel(), "plain");
  const Matrix by_forced = product.by(forced);
  // Its sums run column by column in f32: these very bits, which no other kernel gives.
  const Matrix values = dequantize(q);
  Matrix expected = product.y;
  for (int64_t t = 0; t < 2; ++t)
    for (int64_t r = 0; r < shape.rows; ++r) {
      float sum = 0;
      for (int64_t c = 0; c < shape.cols; ++c) sum += product.x(t, c) * values(r, c);
      expected(t, r) = sum;
    }
  EXPECT_TRUE(same_bits(by_forced.values(), expected.values()));
  EXPECT_FALSE(same_bits(by_best.values(), expected.values()));
}

TEST(Kernels, PlainTakesWhatTheOthersRefuse) {
  Random random(10);
  EXPECT_EQ(PackedMatrix::of_quantized(random_quantized(affine(4, 24, true), {8, 72}, false, random)).kernel(),
            "plain");
  const ForceKernel force("tile-f32");
  EXPECT_EQ(PackedMatrix::of_quantized(random_quantized(affine(4, 24, true), {8, 72}, false, random)).kernel(),
            "plain");
  EXPECT_EQ(PackedMatrix::of_quantized(random_quantized(kQ8_0, {8, 64}, false, random)).kernel(), "tile-f32");
  EXPECT_EQ(PackedMatrix::of_matrix(Matrix(3, 4)).kernel(), "float-f32");
}

TEST(Kernels, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const ForceKernel force("fastest");
  try {
    PackedMatrix::of_matrix(Matrix(2, 2));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tile-f32"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("fastest"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace pare::test
