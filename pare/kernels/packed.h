// A weight matrix ready to be multiplied: float weights as they lie in a mapped file, quantized ones in tiles of 16
// rows (lane = row, see docs/architecture.md). Never expanded as a whole.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "pare/grid/quantized.h"
#include "pare/tensor/dtype.h"

namespace pare {

class PackedMatrix {
 public:
  PackedMatrix();
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;

  // A view of row-major f32, f16 or bf16; `keep` owns the bytes (may be null when the caller does).
  static PackedMatrix of_floats(DType type, std::span<const std::byte> bytes, Shape shape,
                                std::shared_ptr<const void> keep);
  static PackedMatrix of_matrix(Matrix m);
  static PackedMatrix of_quantized(const Quantized& q);
  // As of_quantized, a few hundred rows at a time, so that the codes never lie in memory as a whole: read(first, last)
  // returns those rows on `grid`, all with the same order of columns; first is a multiple of 16. Called in order.
  using ReadRows = std::function<Quantized(int64_t first, int64_t last)>;
  static PackedMatrix of_rows(const Grid& grid, Shape shape, const ReadRows& read);

  Shape shape() const;
  bool empty() const { return !impl_; }
  int64_t bytes() const;            // of weights and parameters, resident or mapped
  std::string_view kernel() const;  // name of the kernel that multiplies it

  // y (tokens x rows) = x (tokens x cols) · Wᵀ, f32 accumulation. Runs on all threads, with the same result for any
  // number of them. Not from inside a parallel region.
  void multiply(MatrixView x, float* y, int64_t y_stride) const;
  // Rows [first, last) as floats, row-major, columns in their original places.
  void expand_rows(int64_t first, int64_t last, float* out) const;
  // Mapped pages leave memory; no effect on owned weights.
  void forget() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace pare
