// Owners and views of row-major matrices. Sizes are signed; a view never owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare {

struct Shape {
  int64_t rows = 0;  // of a weight: output features
  int64_t cols = 0;  // of a weight: input features; every grid groups along these
  int64_t size() const { return rows * cols; }
  bool operator==(const Shape&) const = default;
};

template <class T>
class Plane {
 public:
  Plane() = default;
  Plane(int64_t r, int64_t c, T fill = {}) : rows_(r), cols_(c), values_(static_cast<size_t>(r * c), fill) {}

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t size() const { return rows_ * cols_; }
  bool empty() const { return values_.empty(); }
  Shape shape() const { return {rows_, cols_}; }

  T& operator()(int64_t r, int64_t c) { return values_[static_cast<size_t>(r * cols_ + c)]; }
  const T& operator()(int64_t r, int64_t c) const { return values_[static_cast<size_t>(r * cols_ + c)]; }
  T* row(int64_t r) { return values_.data() + r * cols_; }
  const T* row(int64_t r) const { return values_.data() + r * cols_; }
  T* data() { return values_.data(); }
  const T* data() const { return values_.data(); }
  std::span<T> values() { return values_; }
  std::span<const T> values() const { return values_; }

  bool operator==(const Plane&) const = default;

 private:
  int64_t rows_ = 0, cols_ = 0;
  std::vector<T> values_;
};
using Matrix = Plane<float>;

// Read-only rows of floats, `stride` floats apart.
struct MatrixView {
  const float* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;

  MatrixView() = default;
  MatrixView(const float* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  MatrixView(const Matrix& m) : data(m.data()), rows(m.rows()), cols(m.cols()), stride(m.cols()) {}  // NOLINT: a view

  const float* row(int64_t r) const { return data + r * stride; }
  float operator()(int64_t r, int64_t c) const { return data[r * stride + c]; }
  Shape shape() const { return {rows, cols}; }
  MatrixView rows_between(int64_t first, int64_t last) const { return {row(first), last - first, cols, stride}; }
  MatrixView cols_between(int64_t first, int64_t last) const { return {data + first, rows, last - first, stride}; }
};

Matrix transposed(MatrixView m);
Matrix copy_of(MatrixView m);

}  // namespace pare
