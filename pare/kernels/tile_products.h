// The vector parts of the tile kernel, compiled once per instruction set (tile_products.cpp).
#pragma once

#include "pare/kernels/tiles.h"

namespace pare {

// Tokens come in blocks of kMost, then one block each of the smaller powers of two as far as needed; the block of n
// tokens from token t holds column c of its i-th at x[t columns + c n + i]: a product then reads one stream. Columns
// are in the order of the tiles, zeros up to a whole unit.
//
// For multiply_codes (kMostCodes), odd columns are times 2^-8 (codes in the upper byte of a half dword are read where
// they are, 2^8 times too large), and the sum of unit u, unscaled, is at sums[t units + u n + i].
struct TileActivations {
  int64_t tokens = 0;
  int64_t columns = 0;  // units times 32
  int64_t units = 0;
  const float* x = nullptr;
  const float* sums = nullptr;

  static constexpr int64_t kMostCodes = 2, kMostValues = 8;
  static int64_t block_at(int64_t left, int64_t most) {
    while (most > left) most /= 2;
    return most;
  }
};

// Both give y[token y_stride + row] for the rows of strips [first, last). The first multiplies codes and applies scales
// to sums: one or two tokens. The second makes some columns of a strip into values, in L1, and takes all tokens by
// them.
void multiply_codes(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                    int64_t y_stride);
void multiply_values(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                     int64_t y_stride);

}  // namespace pare
