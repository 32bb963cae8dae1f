// A PyTorch checkpoint (.bin, .pt): a zip archive of stored entries, <root>/data.pkl that names the tensors and
// <root>/data/<key> that hold their bytes. Source: formats.md §5.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pare/base/mapped_file.h"
#include "pare/tensor/dtype.h"

namespace pare {

struct TorchEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;        // outermost first; empty: a scalar
  std::span<const std::byte> bytes;  // contiguous: into the mapped file, or a copy of a strided tensor
};

class TorchFile {
 public:
  // Whether a file that begins with these bytes (16 are enough) was written by torch.save, in either form.
  static bool is_one(std::string_view start);
  // Throws Error naming file, tensor and byte for whatever is not a state dict of plain tensors.
  static std::shared_ptr<const TorchFile> open(const std::filesystem::path& path);

  const std::vector<TorchEntry>& entries() const { return entries_; }  // in the order of the dict
  // Second names of tensors that are stored once: "lm_head.weight" -> "model.embed_tokens.weight".
  const std::map<std::string, std::string>& metadata() const { return ties_; }
  uint64_t file_bytes() const { return file_->bytes().size(); }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<std::shared_ptr<const MappedFile>> copies_;
  std::vector<TorchEntry> entries_;
  std::map<std::string, std::string> ties_;
};

}  // namespace pare
