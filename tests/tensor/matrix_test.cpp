#include "pare/tensor/matrix.h"

#include <gtest/gtest.h>

#include <numeric>

namespace pare {
namespace {

Matrix counted(int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  std::iota(m.values().begin(), m.values().end(), 0.0f);
  return m;
}

TEST(Matrix, IsRowMajor) {
  const Matrix m = counted(3, 5);
  EXPECT_EQ(m(2, 4), 14);
  EXPECT_EQ(m.row(1)[2], 7);
  EXPECT_EQ(m.shape(), (Shape{3, 5}));
  EXPECT_EQ(m.size(), 15);
  EXPECT_TRUE(Matrix().empty());
}

TEST(Matrix, ViewsOfViewsKeepTheStride) {
  const Matrix m = counted(6, 7);
  const MatrixView part = MatrixView(m).rows_between(1, 5).cols_between(2, 6).rows_between(1, 3);
  EXPECT_EQ(part.shape(), (Shape{2, 4}));
  for (int64_t r = 0; r < part.rows; ++r)
    for (int64_t c = 0; c < part.cols; ++c) EXPECT_EQ(part(r, c), m(r + 2, c + 2));
  const Matrix copy = copy_of(part);
  EXPECT_EQ(copy.shape(), part.shape());
  EXPECT_EQ(copy(1, 3), m(3, 5));
}

TEST(Matrix, TransposesEveryShape) {
  for (const Shape s : {Shape{1, 1}, Shape{1, 70}, Shape{70, 1}, Shape{33, 65}, Shape{64, 32}, Shape{0, 5}}) {
    const Matrix m = counted(s.rows, s.cols);
    const Matrix t = transposed(m);
    ASSERT_EQ(t.shape(), (Shape{s.cols, s.rows}));
    for (int64_t r = 0; r < s.rows; ++r)
      for (int64_t c = 0; c < s.cols; ++c) ASSERT_EQ(t(c, r), m(r, c));
    EXPECT_EQ(transposed(t), m);
  }
}

}  // namespace
}  // namespace pare
