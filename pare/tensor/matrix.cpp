#include "pare/tensor/matrix.h"

#include <algorithm>

#include "pare/base/threads.h"

namespace pare {

Matrix transposed(MatrixView m) {
  constexpr int64_t kTile = 32;
  Matrix out(m.cols, m.rows);
  parallel_for((m.rows + kTile - 1) / kTile, [&](int64_t tile) {
    const int64_t r0 = tile * kTile, r1 = std::min(r0 + kTile, m.rows);
    for (int64_t c0 = 0; c0 < m.cols; c0 += kTile)
      for (int64_t c = c0; c < std::min(c0 + kTile, m.cols); ++c)
        for (int64_t r = r0; r < r1; ++r) out(c, r) = m(r, c);
  });
  return out;
}

Matrix copy_of(MatrixView m) {
  Matrix out(m.rows, m.cols);
  for (int64_t r = 0; r < m.rows; ++r) std::copy_n(m.row(r), m.cols, out.row(r));
  return out;
}

}  // namespace pare
