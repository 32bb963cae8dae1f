// The vector part of the float kernel, compiled once per instruction set (float_products.cpp).
#pragma once

#include "pare/kernels/kernel.h"

namespace pare {

// y[token y_stride + row] for the rows [first, last): dot products straight from the stored floats.
void dot_rows(const FloatRows& w, MatrixView x, int64_t first, int64_t last, float* y, int64_t y_stride);

}  // namespace pare
