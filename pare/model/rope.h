// Rotary positions: frequencies under every kind of scaling, and their application to queries and keys.
#pragma once

#include <vector>

#include "pare/model/config.h"

namespace pare {

struct Frequencies {
  std::vector<float> inverse;  // radians per position, one per pair of dimensions
  float scale = 1;             // of cosine and sine (yarn)
};
// `length` is the number of positions known so far; only dynamic scaling and longrope ask for it.
// Sources: Su et al. 2021; linear: Chen et al. 2023; dynamic, yarn: Peng et al. 2023 and transformers'
// modeling_rope_utils; llama3: formats.md §3.7.
Frequencies rope_frequencies(const Rope& rope, int64_t length);

// By how much longrope multiplies cosine and sine.
double longrope_scale(const Rope& rope);

// By how much yarn multiplies the scores of latent attention, where the configuration says; 1 elsewhere.
float latent_score_scale(const Rope& rope);

// The factors by which llama3's scaling divides the frequencies: GGUF's rope_freqs tensor.
std::vector<float> llama3_factors(const Rope& rope);

// Rotates each head of `tokens` rows (heads * head_dim wide, `stride` apart); row i stands at position first + i.
void rotate(const Rope& rope, const Frequencies& frequencies, float* x, int64_t tokens, int64_t heads, int64_t head_dim,
            int64_t stride, int64_t first);

}  // namespace pare
