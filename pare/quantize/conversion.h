// Turning a checkpoint into another format: a plan whose tensors keep what the source has. A quantized matrix goes to
// the grid of the target that contains its values, where there is one; else to the nearest, and the report says what
// changed.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "pare/quantize/plan.h"

namespace pare {

struct ConversionSettings {
  std::string container = {};       // "gguf", "gptq", …, "safetensors" (floats only)
  std::optional<Grid> grid = {};    // for every quantized matrix; unset: the smallest that contains it
  std::optional<DType> dtype = {};  // of floats; unset: as stored, or the model's for what is dequantized
  bool dequantize = false;          // no grids in the output
  bool strict = false;              // refuse what changes values
  int64_t max_shard_bytes = int64_t{5} << 30;
  bool overwrite = false;
  std::string command = {};
};

// To be carried out by quantize(). Reads samples of the quantized matrices. Throws Error for whatever cannot work: a
// column order that the target cannot store and that cannot be undone, an architecture it does not know, …
// Tensors with an edit are never called kept: a quantized one is quantized again after it.
Plan plan_conversion(std::shared_ptr<const Checkpoint> checkpoint, const ConversionSettings& settings,
                     Edits edits = {});

}  // namespace pare
