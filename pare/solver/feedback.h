// Inside solver/ only: error feedback on one strip, lane = row, compiled once per instruction set. Every lane does one
// row's operations in the order of the columns, multiplies and additions kept apart: the same bytes on every CPU.
#pragma once

#include <cstdint>

#include "pare/grid/quantized.h"

namespace pare {

// One number for each of a strip's rows.
struct alignas(64) Lanes {
  float v[kLanes];
};

// out = (a - b) · factor.
void scaled_difference(const Lanes& a, const Lanes& b, float factor, Lanes& out);
// weights[k] += errors[i] · u[i · stride + k] for `columns` errors, one after another, and `count` weights.
void feed_back(const Lanes* errors, int64_t columns, const float* u, int64_t stride, int64_t count, Lanes* weights);

}  // namespace pare
