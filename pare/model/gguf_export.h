// What a model becomes in GGUF: the names, order and arrangement of its tensors, as the reference converter writes
// them. Source: formats.md §3.7, golden/gguf/archs.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "pare/model/arch.h"

namespace pare {

struct GgufTensorPlan {
  std::string hf_name;  // in the checkpoint's own spelling, with ".weight" or ".bias"
  std::string gguf_name;
  std::vector<int64_t> shape;  // in the GGUF file, outermost first
  Role role = Role::q;
  int layer = -1;                        // -1: not in a block
  RowOrder row_order = RowOrder::as_is;  // what gguf_row_permutation turns into an order
  bool transposed = false;               // the checkpoint's floats lie as [in, out]
  float added = 0;                       // to every value: GGUF's norms hold the sum (Gemma)
  bool kept_f32 = false;                 // norms, biases, positions: f32 whatever the recipe says
};

// Every tensor of the checkpoint, in the order of the GGUF file. Left out: what a tied model repeats, and buffers that
// are no weights. A quantized checkpoint's parts count as the one weight that they store. A GGUF checkpoint is planned
// as it is. Throws Error for an architecture that GGUF does not know, and naming a tensor that the table does not.
std::vector<GgufTensorPlan> gguf_tensors(const Config& config, const Arch& arch, const Checkpoint& checkpoint);

// Tensors that no checkpoint has: rope_freqs.weight for llama3 scaling. They stand before all others.
std::vector<std::pair<std::string, std::vector<float>>> gguf_extra_tensors(const Config& config);

// Row r of the GGUF tensor (weight or bias, `rows` outputs) is row order[r] of the checkpoint's; empty: the same order.
// Within a head GGUF has row j * head_dim / 2 + i (j = 0, 1) at 2 i + j. `back` gives the inverse: from GGUF to HF.
std::vector<int64_t> gguf_row_permutation(const Config& config, const TensorName& tensor, int64_t rows,
                                          bool back = false);

// general.name as the reference converter makes it from the name of the model's folder: "llama-2-tiny" → "Llama 2
// Tiny".
std::string gguf_model_name(const std::filesystem::path& path);

}  // namespace pare
