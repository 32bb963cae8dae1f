// Causal attention of a run of queries over all keys so far, tile by tile.
#pragma once

#include "pare/tensor/matrix.h"

namespace pare {

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t window = 0;  // a query sees itself and window - 1 keys before it; 0: all
};

// Row i of `queries` (heads * head_dim) stands at position first + i and sees the rows 0 … first + i of keys and values
// (kv_heads * head_dim each; queries.rows + first of them). `out` has the shape of queries, without gaps.
// Memory: per thread, the scores of one tile of queries of one key-value head.
void attend(const AttentionShape& shape, MatrixView queries, MatrixView keys, MatrixView values, int64_t first,
            float* out);

}  // namespace pare
