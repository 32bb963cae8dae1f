// Inside model/ only: the feed-forward half of a block, dense or of experts. Inputs are tokens x hidden.
#pragma once

#include <vector>

#include "pare/model/routing.h"
#include "pare/model/weights.h"

namespace pare {

// What the last projection reads: of the dense feed-forward, of the one that every token takes beside the experts, of
// one expert.
Matrix dense_inner(const Config& config, const LayerWeights& layer, MatrixView input);
Matrix shared_inner(const Config& config, const LayerWeights& layer, MatrixView input);
Matrix expert_inner(const Config& config, const LayerWeights& layer, size_t expert, MatrixView input);

std::vector<std::vector<Visit>> visits_of(const Config& config, const LayerWeights& layer, const Matrix& input);
// What an expert reads: the rows of its visits, weighed where the configuration says so.
Matrix visitors(const Config& config, const Matrix& input, const std::vector<Visit>& visits);
// The output of experts and of what every token takes besides.
Matrix mixture(const Config& config, const LayerWeights& layer, const Matrix& input);

}  // namespace pare
