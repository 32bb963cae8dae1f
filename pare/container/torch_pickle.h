// The pickle inside a PyTorch checkpoint: a closed table of opcodes and globals, interpreted into plain data. Nothing
// is looked up by name, imported or called. Source: formats.md §5.2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pare/tensor/dtype.h"

namespace pare {

// A tensor as the pickle describes it: a view of one storage. Nothing is checked against the storage yet.
struct TorchView {
  std::string_view name;     // the key in the state dict
  std::string_view storage;  // the archive entry "data/<storage>"
  DType dtype = DType::f32;
  uint64_t storage_bytes = 0;  // as the pickle states it
  int64_t offset = 0;          // elements
  std::vector<int64_t> shape, strides;
};

// The tensors of the state dict, in order; views point into `pickle`. The dict may stand under "state_dict" or "model".
// Throws Error naming byte and opcode for anything that the table does not know, and naming the global that is
// forbidden.
std::vector<TorchView> read_torch_pickle(std::span<const std::byte> pickle, const std::string& where);

}  // namespace pare
