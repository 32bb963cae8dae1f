// A GGUF file laid out as an HF directory: names, rows of q and k, Conv1D and the small files go back.
#pragma once

#include "pare/quantize/plan.h"

namespace pare {

std::vector<PlannedTensor> lay_out_from_gguf(const Plan& plan);
// config.json and the tokenizer's files.
void describe_from_gguf(Plan& plan);

}  // namespace pare
