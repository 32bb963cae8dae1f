// The tensors of the output and how each is made from the checkpoint, for the two kinds of output: an HF directory
// keeps names and order, GGUF renames, reorders and adds.
#pragma once

#include "pare/quantize/plan.h"

namespace pare {

// In file order, every target the plain type that keeps the tensor as the container wants it.
std::vector<PlannedTensor> lay_out(const Plan& plan);

// Fills everything of plan.output but the tensors: configuration, metadata, vocabulary, files to carry along.
void describe_output(Plan& plan);

}  // namespace pare
