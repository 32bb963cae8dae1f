// What calibration measures at the input of linear layers.
#pragma once

#include <span>

#include "pare/model/decoder.h"

namespace pare {

struct InputStatistics {
  Matrix hessian;  // mean of x xᵀ over tokens, K x K, symmetric
  int64_t tokens = 0;
  std::vector<float> mean_square() const;  // diag(hessian): the importance of each column
};

// Runs every sequence up to a site and sums its inputs. `hidden` holds the state before the half of the block that the
// site belongs to (Decoder::site_input). Sequences are summed in their order, whatever the number of threads.
InputStatistics measure_site(const Decoder& model, int layer, Site site, std::span<const Matrix> hidden);

// Advances every sequence past the attention or the feed-forward of a layer.
void advance_attention(const Decoder& model, int layer, std::span<Matrix> hidden);
void advance_feed_forward(const Decoder& model, int layer, std::span<Matrix> hidden);

}  // namespace pare
