// Products of float weights as they lie in the file: dot products at the speed of memory for a few tokens; for more, a
// panel of rows at a time becomes f32 in the thread's own memory and BLAS multiplies it with all tokens.
#include <cblas.h>

#include <algorithm>

#include "pare/base/threads.h"
#include "pare/kernels/float_products.h"
#include "pare/kernels/scratch.h"

namespace pare {
namespace {

constexpr int64_t kTaskBytes = 128 << 10;  // of weights per task, at least
constexpr int64_t kFewTokens = 6;
constexpr int64_t kPanelRows = 128;

void multiply_few(const FloatRows& w, MatrixView x, float* y, int64_t y_stride) {
  const int64_t fours = (kTaskBytes + 4 * w.row_bytes() - 1) / (4 * w.row_bytes()), task = 4 * fours;
  for_tasks((w.shape.rows + task - 1) / task, w.shape.size() * x.rows,
            [&](int64_t i) { dot_rows(w, x, i * task, std::min((i + 1) * task, w.shape.rows), y, y_stride); });
}

// Rows [first, first + rows) as aligned f32: where they lie if they are that already, else converted.
const float* as_floats(const FloatRows& w, int64_t first, int64_t rows) {
  const std::byte* stored = w.row(first);
  if (w.type == DType::f32 && reinterpret_cast<uintptr_t>(stored) % alignof(float) == 0)
    return reinterpret_cast<const float*>(stored);
  const auto count = static_cast<size_t>(rows * w.shape.cols);
  float* panel = scratch<1>(rows * w.shape.cols);
  to_f32(w.type, {stored, count * static_cast<size_t>(w.element())}, {panel, count});
  return panel;
}

}  // namespace

void multiply_floats(const FloatRows& w, MatrixView x, float* y, int64_t y_stride) {
  if (x.rows <= kFewTokens) return multiply_few(w, x, y, y_stride);
  for_tasks((w.shape.rows + kPanelRows - 1) / kPanelRows, w.shape.size() * x.rows, [&](int64_t i) {
    const int64_t first = i * kPanelRows, rows = std::min(kPanelRows, w.shape.rows - first);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(x.rows), static_cast<int>(rows),
                static_cast<int>(x.cols), 1.0f, x.data, static_cast<int>(x.stride), as_floats(w, first, rows),
                static_cast<int>(x.cols), 0.0f, y + first, static_cast<int>(y_stride));
  });
}

}  // namespace pare
