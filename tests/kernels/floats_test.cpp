#include <cstring>
#include <fstream>

#include "pare/base/mapped_file.h"
#include "tests/kernels/weights.h"
#include "tests/support/golden.h"

namespace pare::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};
constexpr Shape kShapes[] = {{1, 1}, {3, 7}, {4, 16}, {37, 129}, {130, 65}};

// Weights at `offset` bytes past an aligned address, with nothing after the last: reading further is an error that
// the sanitizers see.
struct Stored {
  std::vector<std::byte> memory;
  std::span<const std::byte> bytes;
  Matrix values;  // what is stored, as floats
  DType type;

  Stored(DType t, Shape shape, size_t offset, Random& random)
      : values(random_matrix(random, shape.rows, shape.cols)), type(t) {
    const auto size = static_cast<size_t>(shape.size() * info(type).bits / 8);
    memory.resize(offset + size);
    from_f32(type, values.values(), std::span(memory).subspan(offset));
    bytes = std::span(memory).subspan(offset);
    to_f32(type, bytes, values.values());
  }
  PackedMatrix packed() const { return PackedMatrix::of_floats(type, bytes, values.shape(), nullptr); }
};

TEST(Floats, MultiplyLikeSumsInDoubleAtAnyAddress) {
  Random random(1);
  for (const DType type : kTypes)
    for (const Shape shape : kShapes)
      for (const size_t offset : {0, 1, 2, 4}) {
        SCOPED_TRACE(std::string(info(type).name) + " at " + std::to_string(offset));
        const Stored w(type, shape, offset, random);
        for (const int64_t tokens : {1, 2, 3, 5, 33}) {
          Product product(random, tokens, shape);
          product.by(w.packed());
          product.expect_near(w.values);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
}

TEST(Floats, EveryInstructionSetAndThePlainKernelAgree) {
  Random random(2);
  for (const DType type : kTypes)
    for (const size_t offset : {0, 3}) {
      const Stored w(type, {23, 101}, offset, random);
      for (const int64_t tokens : {1, 2, 6}) {
        Product product(random, tokens, w.values.shape());
        for_instruction_sets([&] {
          product.by(w.packed());
          product.expect_near(w.values);
        });
        const ForceKernel force("plain");
        const PackedMatrix plain = w.packed();
        EXPECT_EQ(plain.kernel(), "plain");
        product.by(plain);
        product.expect_near(w.values);
      }
    }
}

TEST(Floats, WorkCutAmongThreadsGivesTheSameBits) {
  Random random(3);
  for (const DType type : kTypes) {
    const Stored w(type, {300, 2100}, 2, random);
    const PackedMatrix packed = w.packed();
    for (const int64_t tokens : {1, 4, 37}) {
      Product product(random, tokens, w.values.shape());
      Matrix first;
      for (const int count : {1, 2, 5}) {
        const Threads use(count);
        const Matrix& y = product.by(packed);
        if (first.empty()) first = y;
        EXPECT_TRUE(same_bits(y.values(), first.values())) << tokens << " tokens, " << count << " threads";
      }
      product.expect_near(w.values);
    }
  }
}

TEST(Floats, ExpandToWhatIsStored) {
  Random random(4);
  for (const DType type : kTypes) {
    const Stored w(type, {9, 13}, 1, random);
    Matrix got(4, 13);
    w.packed().expand_rows(3, 7, got.data());
    EXPECT_TRUE(same_bits(got.values(), std::span(w.values.row(3), 4 * 13)));
  }
}

TEST(Floats, AnOwnedMatrixIsMovedAndSurvivesForgetting) {
  Random random(5);
  Matrix m = random_matrix(random, 20, 30);
  const Matrix copy = m;
  const PackedMatrix w = PackedMatrix::of_matrix(std::move(m));
  EXPECT_EQ(w.bytes(), 20 * 30 * 4);
  w.forget();
  Product product(random, 2, copy.shape());
  product.by(w);
  product.expect_near(copy);
}

TEST(Floats, AMappedMatrixKeepsItsFileAndCanBeForgotten) {
  Random random(6);
  const TemporaryDirectory folder;
  const Stored w(DType::bf16, {64, 256}, 6, random);
  std::ofstream(folder / "w.bin", std::ios::binary)
      .write(reinterpret_cast<const char*>(w.memory.data()), static_cast<std::streamsize>(w.memory.size()));
  PackedMatrix packed;
  EXPECT_TRUE(packed.empty());
  {
    const auto file = MappedFile::open(folder / "w.bin");
    packed = PackedMatrix::of_floats(DType::bf16, file->bytes().subspan(6), w.values.shape(), file);
  }
  for (int i = 0; i < 2; ++i) {
    Product product(random, 1, w.values.shape());
    product.by(packed);
    product.expect_near(w.values);
    packed.forget();
  }
}

TEST(Floats, NothingTimesNothingIsZero) {
  const PackedMatrix w = PackedMatrix::of_matrix(Matrix(3, 0));
  float y[6] = {1, 1, 1, 1, 1, 1};
  w.multiply({y, 2, 0, 0}, y, 3);
  EXPECT_TRUE(std::ranges::all_of(y, [](float v) { return v == 0; }));
}

}  // namespace
}  // namespace pare::test
