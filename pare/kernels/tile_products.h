// The vector parts of the tile kernel, compiled once per instruction set (tile_products.cpp).
#pragma once

#include "pare/kernels/tiles.h"

namespace pare {

// Activations as tile products want them. Columns are in the order of the tiles, zeros up to a whole unit, and those of
// odd columns are times 2^-8 (codes in the upper byte of a half dword are read where they are, 2^8 times too large).
// Tokens come in blocks of eight, then one block each of four, two and one as far as needed; the block of n tokens from
// token t holds column c of its i-th at x[t columns + c n + i], and the sum of unit u at sums[t units + u n + i]: a
// product then reads one stream.
struct TileActivations {
  int64_t tokens = 0;
  int64_t columns = 0;  // units times 32
  int64_t units = 0;
  const float* x = nullptr;
  const float* sums = nullptr;  // of the unscaled activations of each unit

  static int64_t block_at(int64_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }
};

// y[token y_stride + row] for the rows of strips [first, last).
void multiply_strips(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                     int64_t y_stride);

}  // namespace pare
