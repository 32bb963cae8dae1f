// What calibration measures at the input of linear layers.
#pragma once

#include <span>

#include "pare/model/decoder.h"

namespace pare {

struct InputStatistics {
  Matrix hessian;  // mean of x xᵀ over tokens, K x K, symmetric
  int64_t tokens = 0;
  int64_t visits = 0;  // of an expert: the tokens that took it, which may be fewer than were measured
  std::vector<float> mean_square() const;  // diag(hessian): the importance of each column
};

// Fewer tokens than this say too little of an expert's inputs: it is then measured on all tokens of its layer.
inline constexpr int64_t kFewestExpertTokens = 256;

// Runs every sequence up to a tap and sums its inputs. `hidden` holds the state before the half of the block that the
// tap belongs to (Decoder::tap_input). Sequences are summed in their order, whatever the number of threads.
InputStatistics measure_tap(const Decoder& model, int layer, Tap tap, std::span<const Matrix> hidden);

// Advances every sequence past the attention or the feed-forward of a layer.
void advance_attention(const Decoder& model, int layer, std::span<Matrix> hidden);
void advance_feed_forward(const Decoder& model, int layer, std::span<Matrix> hidden);

}  // namespace pare
