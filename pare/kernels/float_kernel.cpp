// Products of float weights as they lie in the file, by dot products: one token at the speed of memory, many at more
// than the speed of sgemm (bench/kernels_bench.cpp), with no copy of the weights in between.
#include <algorithm>

#include "pare/base/threads.h"
#include "pare/kernels/float_products.h"
#include "pare/kernels/scratch.h"

namespace pare {
namespace {

constexpr int64_t kTaskBytes = 128 << 10;  // of weights per task, at least

}  // namespace

void multiply_floats(const FloatRows& w, MatrixView x, float* y, int64_t y_stride) {
  const int64_t fours = (kTaskBytes + 4 * w.row_bytes() - 1) / (4 * w.row_bytes()), task = 4 * fours;
  for_tasks((w.shape.rows + task - 1) / task, w.shape.size() * x.rows,
            [&](int64_t i) { dot_rows(w, x, i * task, std::min((i + 1) * task, w.shape.rows), y, y_stride); });
}

}  // namespace pare
