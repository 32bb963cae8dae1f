// What a checkpoint holds, as one struct: for `pare inspect` and whoever else wants to know.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pare/container/checkpoint.h"

namespace pare {

struct InspectedTensor {
  std::string name;            // logical: one name for the codes, scales and zeros of a quantized matrix
  std::vector<int64_t> shape;  // outermost first
  std::string type;            // "bf16", "q4_k", "int4-g128"
  bool on_grid = false;        // quantized; else plain numbers
  int64_t parameters = 0, bytes = 0;
};

struct Inspection {
  std::string architecture;                // "llama"; as the file says where Pare does not know it
  std::optional<std::string> unsupported;  // why Pare cannot run it
  Format format = Format::huggingface;
  int64_t parameters = 0, file_bytes = 0, weight_bytes = 0;
  double bits_per_weight = 0;  // of all tensors together
  std::optional<int64_t> context_length, layers, hidden, vocabulary;
  std::string quantization;  // "gptq int4-g128", "none"
  std::vector<InspectedTensor> tensors;
};

// Works for every checkpoint that can be opened, also of an architecture that Pare does not run.
Inspection inspect(const Checkpoint& checkpoint);

std::string_view name_of(Format format);  // "huggingface", "gguf"

}  // namespace pare
