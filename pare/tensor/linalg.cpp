#include "pare/tensor/linalg.h"

#include <cblas.h>

#include <algorithm>
#include <cassert>

#include "pare/base/threads.h"

namespace pare {
namespace {

constexpr int64_t kTile = 256;  // rows of a result that one thread computes at a time
int to_int(int64_t x) { return static_cast<int>(x); }
int64_t tiles(int64_t n) { return (n + kTile - 1) / kTile; }

}  // namespace

void multiply_transposed(MatrixView x, MatrixView w, float* y, int64_t y_stride, bool accumulate) {
  assert(x.cols == w.cols);
  if (x.rows == 0 || w.rows == 0) return;
  const int64_t across = tiles(w.rows);
  parallel_for(tiles(x.rows) * across, [&](int64_t tile) {
    const int64_t r = tile / across * kTile, c = tile % across * kTile;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_int(std::min(kTile, x.rows - r)),
                to_int(std::min(kTile, w.rows - c)), to_int(x.cols), 1.0f, x.row(r), to_int(x.stride), w.row(c),
                to_int(w.stride), accumulate ? 1.0f : 0.0f, y + r * y_stride + c, to_int(y_stride));
  });
}

void multiply_add(float alpha, MatrixView a, MatrixView b, float* y, int64_t y_stride) {
  assert(a.cols == b.rows);
  if (a.rows == 0 || b.cols == 0 || a.cols == 0) return;
  const int64_t across = tiles(b.cols);
  parallel_for(tiles(a.rows) * across, [&](int64_t tile) {
    const int64_t r = tile / across * kTile, c = tile % across * kTile;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_int(std::min(kTile, a.rows - r)),
                to_int(std::min(kTile, b.cols - c)), to_int(a.cols), alpha, a.row(r), to_int(a.stride), b.data + c,
                to_int(b.stride), 1.0f, y + r * y_stride + c, to_int(y_stride));
  });
}

}  // namespace pare
