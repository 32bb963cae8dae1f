// The values of a matrix on one grid, moved onto another. "Does that grid contain these values?" is answered by
// building the other grid's parameters from this one's and comparing every value, never by a rule per pair of formats.
#pragma once

#include <span>

#include "pare/grid/quantized.h"

namespace pare {

struct Embedded {
  Quantized q;          // the nearest values that the constructed parameters allow
  int64_t changed = 0;  // values that are not exactly the source's; 0: lossless
};

// Row r of the result is row rows[r] of `from` (empty: all, in order; fewer make a smaller matrix). Columns return to
// their original places unless `keep_order`. Throws Error as check_shape where the shape does not lie on the grid.
Embedded embed(const Quantized& from, const Grid& to, std::span<const int64_t> rows = {}, bool keep_order = false);

// Values of q (in original places) that are not exactly these.
int64_t count_changed(const Quantized& q, MatrixView wanted);

}  // namespace pare
