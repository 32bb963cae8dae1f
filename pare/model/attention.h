// Causal attention of a run of queries over all keys so far, tile by tile.
#pragma once

#include <span>
#include <vector>

#include "pare/model/config.h"
#include "pare/tensor/matrix.h"

namespace pare {

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t value_dim = 0;  // of the values and of what comes out; 0: head_dim
  int64_t window = 0;     // a query sees itself and window - 1 keys before it; 0: all
  float scale = 0;        // of the scores; 0: 1/sqrt(head_dim)
  float cap = 0;          // scaled scores become cap · tanh(score / cap); 0: no cap
  // Per head: what a key's score gains for each position that it stands at. Empty: nothing.
  std::span<const float> slopes = {};
  float slope_scale = 1;              // of the gain
  bool round_bias = false;            // the gain is rounded to bf16 before it is scaled
  int64_t chunk = 0;                  // a query sees only keys of its own run of so many positions; 0: all
  std::span<const float> sinks = {};  // per head: a score that takes part in the softmax and gives nothing
};
// Source: Press et al. 2022 (arXiv 2108.12409), heads that are no power of two as there.
std::vector<float> alibi_slopes(const Config& config);

// Row i of `queries` (heads * head_dim) stands at position first + i and sees the rows 0 … first + i of keys and values
// (kv_heads * head_dim and kv_heads * value_dim; queries.rows + first of them). `out` is queries.rows x (heads *
// value_dim), without gaps.
// Memory: per thread, the scores of one tile of queries of one key-value head.
void attend(const AttentionShape& shape, MatrixView queries, MatrixView keys, MatrixView values, int64_t first,
            float* out);

}  // namespace pare
