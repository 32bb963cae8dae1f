// `quantization_config` of compressed-tensors checkpoints. Source: hf_checkpoints.md A.3.
#pragma once

#include <vector>

#include "pare/container/hf_format.h"

namespace pare {

// The widths of integer codes that the config's groups name; 4 and 8 where it names none. Throws Error on others than
// 2 to 8.
std::vector<int> ct_widths(const HfFiles& files);

// The side of the blocks that share a scale; 128 where the config names none. Throws Error where they are no squares.
int64_t ct_block(const HfFiles& files);

enum class CtActivations : uint8_t {
  floats,  // as they come
  bytes,   // rounded to int8 or FP8 while running, as the weights are, with a scale per token
};
Json ct_config_of(const OutputPlan& plan, CtActivations activations);

template <CtActivations kActivations>
Json ct_config(const OutputPlan& plan, const HfWritten&) {
  return ct_config_of(plan, kActivations);
}

}  // namespace pare
