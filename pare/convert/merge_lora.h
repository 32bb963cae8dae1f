// A PEFT adapter folded into its base: W + scale · B A, normalized and rescaled for DoRA, whole modules replaced.
// Source: PEFT's adapter_config.json and state dicts (layers Linear, Embedding, Conv1D).
#pragma once

#include <filesystem>
#include <memory>

#include "pare/quantize/conversion.h"

namespace pare {

// The plan of a conversion whose tensors carry the adapter: floats stay floats, a quantized base becomes floats or,
// where settings name a container of grids, is quantized again where the adapter changed it. Throws Error when the
// adapter is damaged, of a kind that is not read, or of another base: every one of its tensors must have a place of its
// shape.
Plan plan_merge(std::shared_ptr<const Checkpoint> base, const std::filesystem::path& adapter,
                const ConversionSettings& settings);

}  // namespace pare
