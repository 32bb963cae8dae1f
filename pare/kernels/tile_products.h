// The vector parts of the tile kernel, compiled once per instruction set (tile_products.cpp).
#pragma once

#include "pare/kernels/tiles.h"

namespace pare {

// Activations as tile products want them: columns in the order of the tiles, zeros up to a whole unit, those of odd
// columns times 2^-8 (codes in the upper byte of a half dword are read without shifting them down, 2^8 times too
// large).
struct TileActivations {
  int64_t tokens = 0;
  const float* x = nullptr;     // tokens x stride
  int64_t stride = 0;           // 32 units
  const float* sums = nullptr;  // tokens x units: of the unscaled activations of each unit
  int64_t units = 0;
};

// y[token y_stride + row] for the rows of strips [first, last).
void multiply_strips(const Tiles& tiles, const TileActivations& a, int64_t first, int64_t last, float* y,
                     int64_t y_stride);

}  // namespace pare
