// Inside solver/ only: error feedback on one strip, lane = row, compiled once per instruction set. Every lane does one
// row's operations in the order of the columns, multiplies and subtractions kept apart: the same bytes on every CPU.
#pragma once

#include <cstdint>

#include "pare/grid/quantized.h"

namespace pare {

// One number for each of a strip's rows.
struct alignas(64) Lanes {
  float v[kLanes];
};

// weights[k] -= error · u[k] for `count` columns.
void feed_back(const Lanes& error, const float* u, int64_t count, Lanes* weights);

}  // namespace pare
