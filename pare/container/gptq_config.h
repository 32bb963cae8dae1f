// `quantization_config`, as GPTQ checkpoints carry it in config.json and in quantize_config.json.
// Source: hf_checkpoints.md A.1.1.
#pragma once

#include <string>

#include "pare/base/json.h"
#include "pare/container/container.h"
#include "pare/container/gptq_tensors.h"

namespace pare {

// Reads what the layers need; null stands for a checkpoint that says nothing. Throws Error for variants of GPTQ that
// are not read, saying which.
GptqConvention read_gptq_config(const Json& config, const std::string& where);

// What transformers, vLLM and GPTQModel want to find for this plan: the most frequent grid as the rule, every other
// layer under "dynamic".
Json gptq_config(const OutputPlan& plan, GptqZeros zeros, bool ordered);

}  // namespace pare
