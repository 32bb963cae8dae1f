// The kernels, best first. PackedMatrix takes the first row whose takes() agrees; the last row of each table is plain
// C++, takes everything and is what the others are tested against. The environment variable PARE_KERNEL names the one
// to use wherever it can be used; where it cannot, the plain one steps in.
#pragma once

#include <span>
#include <string_view>

#include "pare/base/threads.h"
#include "pare/kernels/tiles.h"
#include "pare/tensor/dtype.h"

namespace pare {

// Row-major f32, f16 or bf16 somewhere in a mapped file: no alignment is promised.
struct FloatRows {
  DType type = DType::f32;
  const std::byte* data = nullptr;
  Shape shape;

  int64_t element() const { return info(type).bits / 8; }
  int64_t row_bytes() const { return shape.cols * element(); }
  const std::byte* row(int64_t r) const { return data + r * row_bytes(); }
};

struct FloatKernel {
  std::string_view name;
  bool (*takes)(const FloatRows& w);
  void (*multiply)(const FloatRows& w, MatrixView x, float* y, int64_t y_stride);
};

struct TileKernel {
  std::string_view name;
  bool (*takes)(const Grid& grid, Shape shape);
  TileLayout (*layout)(const Grid& grid, Shape shape);
  void (*pack)(const Quantized& q, int64_t first_row, Tiles& tiles);
  void (*multiply)(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride);
  // Units [first, last) of a strip to (column, lane), `stride` floats from column to column.
  void (*expand)(const Tiles& tiles, int64_t strip, int64_t first, int64_t last, float* out, int64_t stride);
};

std::span<const FloatKernel> float_kernels();
std::span<const TileKernel> tile_kernels();

// Both throw Error when PARE_KERNEL names no kernel at all.
const FloatKernel& choose(const FloatRows& w);
const TileKernel& choose(const Grid& grid, Shape shape);

// Rows of tables, one file each.
void multiply_floats(const FloatRows& w, MatrixView x, float* y, int64_t y_stride);
void multiply_floats_plain(const FloatRows& w, MatrixView x, float* y, int64_t y_stride);
void multiply_tiles(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride);
void multiply_tiles_plain(const Tiles& tiles, MatrixView x, float* y, int64_t y_stride);
void expand_tiles(const Tiles& tiles, int64_t strip, int64_t first, int64_t last, float* out, int64_t stride);
void expand_tiles_plain(const Tiles& tiles, int64_t strip, int64_t first, int64_t last, float* out, int64_t stride);

// Below this much work (multiplications) waking the other threads costs more than it brings: a few microseconds.
inline constexpr int64_t kWorthThreads = int64_t{1} << 18;
template <class Body>
void for_tasks(int64_t count, int64_t work, Body&& body) {
  if (work >= kWorthThreads) return parallel_for(count, body);
  for (int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace pare
