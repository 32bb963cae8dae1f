// Which experts a token takes, and how much each counts.
#pragma once

#include <span>
#include <vector>

#include "pare/model/config.h"
#include "pare/tensor/matrix.h"

namespace pare {

// One token at one expert.
struct Visit {
  int64_t token = 0;
  float weight = 1;
};

// For each expert the tokens that take it, in their order. `logits` is tokens x experts; `correction`, one per expert,
// is added to the scores by which experts are chosen, or empty.
std::vector<std::vector<Visit>> route(const Moe& moe, MatrixView logits, std::span<const float> correction);

}  // namespace pare
