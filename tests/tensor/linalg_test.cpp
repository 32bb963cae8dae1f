// Against the definitions in double precision, at sizes on both sides of every tile; and the promise that the number of
// threads changes no bit.
#include "pare/tensor/linalg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "pare/base/threads.h"

namespace pare {
namespace {

Matrix random_matrix(int64_t rows, int64_t cols, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Matrix m(rows, cols);
  for (float& x : m.values()) x = normal(generator);
  return m;
}

// xᵀx / rows + damp·I with inputs of very different sizes, as in a model.
Matrix random_hessian(int64_t n, int64_t samples, float damp, unsigned seed = 2) {
  Matrix x = random_matrix(samples, n, seed);
  for (int64_t r = 0; r < samples; ++r)
    for (int64_t c = 0; c < n; ++c) x(r, c) *= (c % 17 == 3 ? 8.0f : 1.0f) / std::sqrt(static_cast<float>(samples));
  Matrix h(n, n);
  add_gram(x, h);
  mirror_lower(h);
  for (int64_t i = 0; i < n; ++i) h(i, i) += damp;
  return h;
}

double dot(const float* a, int64_t a_step, const float* b, int64_t b_step, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i * a_step]) * b[i * b_step];
  return sum;
}

class Threads : public testing::Test {
 protected:
  ~Threads() override { set_threads(before_); }
  const int before_ = threads();
};

void expect_same_bytes(const std::function<Matrix()>& compute) {
  set_threads(1);
  const Matrix one = compute();
  for (const int count : {2, 4}) {
    set_threads(count);
    EXPECT_EQ(compute(), one) << count << " threads";
  }
}

struct Sizes {
  int64_t m, n, k;
};
class Product : public testing::TestWithParam<Sizes> {};
INSTANTIATE_TEST_SUITE_P(AcrossTiles, Product,
                         testing::Values(Sizes{1, 1, 1}, Sizes{1, 130, 40}, Sizes{8, 65, 33}, Sizes{9, 64, 33},
                                         Sizes{257, 70, 20}, Sizes{256, 300, 5}, Sizes{260, 1030, 9}));

TEST_P(Product, MultiplyTransposedIsTheDefinition) {
  const auto [m, n, k] = GetParam();
  const Matrix x = random_matrix(m, k + 3), w = random_matrix(n, k + 1, 2);
  Matrix y(m, n + 2, 7.0f);
  const MatrixView xs = MatrixView(x).cols_between(2, k + 2), ws = MatrixView(w).cols_between(1, k + 1);
  multiply_transposed(xs, ws, y.data(), y.cols());
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < n; ++c) ASSERT_NEAR(y(r, c), dot(xs.row(r), 1, ws.row(c), 1, k), 1e-4) << r << ", " << c;
    EXPECT_EQ(y(r, n), 7) << "wrote beyond the result";
    EXPECT_EQ(y(r, n + 1), 7);
  }
  multiply_transposed(xs, ws, y.data(), y.cols(), true);
  for (int64_t r = 0; r < m; r += 3)
    for (int64_t c = 0; c < n; c += 3) ASSERT_NEAR(y(r, c), 2 * dot(xs.row(r), 1, ws.row(c), 1, k), 2e-4);
}

TEST_P(Product, MultiplyAddIsTheDefinition) {
  const auto [m, n, k] = GetParam();
  const Matrix a = random_matrix(m, k), b = random_matrix(k, n + 1, 2);
  Matrix y(m, n, 1.0f);
  multiply_add(-2.0f, a, MatrixView(b).cols_between(1, n + 1), y.data(), y.cols());
  for (int64_t r = 0; r < m; ++r)
    for (int64_t c = 0; c < n; ++c) ASSERT_NEAR(y(r, c), 1 - 2 * dot(a.row(r), 1, b.data() + c + 1, n + 1, k), 2e-4);
}

TEST(Linalg, EmptyProductsChangeNothing) {
  Matrix y(2, 2, 3.0f);
  const Matrix none(0, 4), thin(2, 0), flat(0, 2), four(2, 4);
  multiply_transposed(none, four, y.data(), 2);
  multiply_transposed(four, none, y.data(), 2);
  multiply_add(1, thin, flat, y.data(), 2);
  EXPECT_EQ(y, Matrix(2, 2, 3.0f));
}

class Gram : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(AcrossTiles, Gram, testing::Values(1, 5, 511, 512, 513, 700));

TEST_P(Gram, AddsOnlyToTheLowerTriangle) {
  const int64_t n = GetParam(), samples = 37;
  const Matrix x = random_matrix(samples, n);
  Matrix h(n, n, 5.0f);
  add_gram(x, h);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c<n; c += r> 20 ? 7 : 1)
      ASSERT_NEAR(h(r, c), c > r ? 5.0 : 5.0 + dot(x.data() + r, n, x.data() + c, n, samples), 1e-4) << r << ", " << c;
  mirror_lower(h);
  EXPECT_EQ(h, transposed(h));
  ASSERT_NEAR(h(0, n - 1), 5.0 + dot(x.data(), n, x.data() + n - 1, n, samples), 1e-4);
}

class Factor : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(AcrossTiles, Factor, testing::Values(1, 2, 63, 64, 65, 200, 256, 257, 576, 600));

TEST_P(Factor, LowerTimesItsTransposeIsTheMatrix) {
  const int64_t n = GetParam();
  const Matrix h = random_hessian(n, 2 * n + 5, 0.1f);
  Matrix l = h;
  ASSERT_TRUE(cholesky_lower(l));
  for (int64_t r = 0; r < n; r += 3)
    for (int64_t c = 0; c <= r; c += 2)
      ASSERT_NEAR(dot(l.row(r), 1, l.row(c), 1, c + 1), h(r, c), 2e-5 * std::sqrt(h(r, r) * h(c, c))) << r << ", " << c;
}

// A promise of the header: the upper triangle may hold anything.
TEST(Linalg, CholeskyReadsOnlyTheLowerTriangle) {
  const Matrix h = random_hessian(150, 300, 0.1f);
  Matrix plain = h, spoilt = h;
  for (int64_t r = 0; r < 150; ++r)
    for (int64_t c = r + 1; c < 150; ++c) spoilt(r, c) = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(cholesky_lower(plain));
  ASSERT_TRUE(cholesky_lower(spoilt));
  for (int64_t r = 0; r < 150; ++r)
    for (int64_t c = 0; c <= r; ++c) ASSERT_EQ(plain(r, c), spoilt(r, c));
}

TEST_P(Factor, RefusesWhatIsNotPositiveDefinite) {
  const int64_t n = GetParam();
  for (const int64_t bad : {int64_t{0}, n / 2, n - 1}) {
    for (const float value : {-1.0f, std::numeric_limits<float>::quiet_NaN()}) {
      Matrix lower = random_hessian(n, 2 * n + 5, 0.1f);
      lower(bad, bad) = value;
      EXPECT_FALSE(cholesky_lower(lower)) << value << " at " << bad;
    }
  }
}

TEST_F(Threads, DoNotChangeAnyBit) {
  const Matrix x = random_matrix(300, 700), w = random_matrix(1100, 700, 2), one = random_matrix(1, 700, 3);
  const Matrix h = random_hessian(700, 900, 0.1f);
  expect_same_bytes([&] {
    Matrix y(300, 1100);
    multiply_transposed(x, w, y.data(), 1100);
    return y;
  });
  expect_same_bytes([&] {
    Matrix y(1, 1100);
    multiply_transposed(one, w, y.data(), 1100);
    return y;
  });
  expect_same_bytes([&] {
    Matrix y(1, 60);  // a lone tile must not be handed to a threaded BLAS
    multiply_transposed(one, MatrixView(w).rows_between(0, 60), y.data(), 60);
    return y;
  });
  expect_same_bytes([&] {
    Matrix y(1100, 700);
    multiply_add(1.0f, w, h, y.data(), 700);
    return y;
  });
  expect_same_bytes([&] {
    Matrix gram(700, 700);
    add_gram(x, gram);
    add_gram(w, gram);
    return gram;
  });
  expect_same_bytes([&] {
    Matrix r = h;
    EXPECT_TRUE(cholesky_lower(r));
    return r;
  });
}

TEST(Linalg, FindsTheFirstElementThatIsNotFinite) {
  Matrix m = random_matrix(50, 20);
  EXPECT_FALSE(find_not_finite(m));
  EXPECT_FALSE(find_not_finite(Matrix()));
  m(40, 3) = std::numeric_limits<float>::quiet_NaN();
  m(31, 7) = -std::numeric_limits<float>::infinity();
  m(31, 9) = std::numeric_limits<float>::infinity();
  const auto found = find_not_finite(m);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->row, 31);
  EXPECT_EQ(found->col, 7);
  EXPECT_FALSE(find_not_finite(MatrixView(m).rows_between(0, 31)));
  EXPECT_FALSE(find_not_finite(MatrixView(m).cols_between(10, 20).rows_between(20, 50)));
}

}  // namespace
}  // namespace pare
