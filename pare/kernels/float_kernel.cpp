// Products of float weights as they lie in the file: a few tokens by dot products at the speed of memory, many by BLAS
// on panels of rows converted to f32 in cache.
#include <cblas.h>

#include <algorithm>

#include "pare/base/threads.h"
#include "pare/kernels/float_products.h"
#include "pare/kernels/scratch.h"

namespace pare {
namespace {

constexpr int64_t kFewTokens = 8;
constexpr int64_t kTaskBytes = 128 << 10;  // of weights per task, at least
constexpr int64_t kPanelRows = 128, kPanelCols = 1024, kBlockTokens = 512;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int to_int(int64_t x) { return static_cast<int>(x); }

void multiply_few(const FloatRows& w, MatrixView x, float* y, int64_t y_stride) {
  if (w.shape.size() * x.rows < kWorthThreads) return dot_rows(w, x, 0, w.shape.rows, y, y_stride);
  const int64_t task = divide_up(kTaskBytes, 4 * w.row_bytes()) * 4;  // fours of rows
  parallel_for(divide_up(w.shape.rows, task),
               [&](int64_t i) { dot_rows(w, x, i * task, std::min((i + 1) * task, w.shape.rows), y, y_stride); });
}

// Columns [first, last) of up to kPanelRows rows as floats: in place where they already are, else converted.
MatrixView panel(const FloatRows& w, int64_t row, int64_t rows, int64_t first, int64_t cols) {
  const std::byte* from = w.row(row) + first * w.element();
  if (w.type == DType::f32 && reinterpret_cast<uintptr_t>(from) % alignof(float) == 0)
    return {reinterpret_cast<const float*>(from), rows, cols, w.shape.cols};
  float* out = scratch<1>(kPanelRows * kPanelCols);
  for (int64_t r = 0; r < rows; ++r)
    to_f32(w.type, {from + r * w.row_bytes(), static_cast<size_t>(cols * w.element())},
           {out + r * cols, static_cast<size_t>(cols)});
  return {out, rows, cols, cols};
}

void multiply_panel(const FloatRows& w, MatrixView x, int64_t row, float* y, int64_t y_stride) {
  const int64_t rows = std::min(kPanelRows, w.shape.rows - row);
  for (int64_t c = 0; c < w.shape.cols; c += kPanelCols) {
    const int64_t cols = std::min(kPanelCols, w.shape.cols - c);
    const MatrixView p = panel(w, row, rows, c, cols);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_int(x.rows), to_int(rows), to_int(cols), 1.0f, x.data + c,
                to_int(x.stride), p.data, to_int(p.stride), c == 0 ? 0.0f : 1.0f, y + row, to_int(y_stride));
  }
}

void multiply_many(const FloatRows& w, MatrixView x, float* y, int64_t y_stride) {
  const int64_t panels = divide_up(w.shape.rows, kPanelRows), blocks = divide_up(x.rows, kBlockTokens);
  parallel_for(panels * blocks, [&](int64_t i) {
    const int64_t row = i / blocks * kPanelRows, first = i % blocks * kBlockTokens;
    const int64_t last = std::min(first + kBlockTokens, x.rows);
    multiply_panel(w, x.rows_between(first, last), row, y + first * y_stride, y_stride);
  });
}

}  // namespace

void multiply_floats(const FloatRows& w, MatrixView x, float* y, int64_t y_stride) {
  if (x.rows <= kFewTokens) return multiply_few(w, x, y, y_stride);
  multiply_many(w, x, y, y_stride);
}

}  // namespace pare
