// The safetensors file: reading with every check of its specification, and writing with a layout known beforehand.
// Source: huggingface/safetensors README and formats.md §4.
//
//   u64 N | N bytes of JSON, padded with spaces | data
//   {"__metadata__":{"format":"pt"},"name":{"dtype":"F16","shape":[2,2],"data_offsets":[begin,end]},…}
//
// Offsets count from the start of the data; tensors follow each other without holes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pare/base/mapped_file.h"
#include "pare/base/output.h"
#include "pare/tensor/dtype.h"

namespace pare {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;        // outermost first; empty: a scalar
  std::span<const std::byte> bytes;  // into the mapped file; may be unaligned
};

class SafetensorsFile {
 public:
  // Throws Error naming file, tensor and offset for anything the specification forbids.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in file order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_->path(); }
  uint64_t file_bytes() const { return file_->bytes().size(); }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

struct SafetensorsSlot {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
};
uint64_t slot_bytes(const SafetensorsSlot& slot);

// Header and offsets are fixed by the list of tensors, so the size is known before the first byte; tensors may then be
// added in any order and from any thread, each once. In the file they stand by falling width of type, then by name.
class SafetensorsWriter {
 public:
  SafetensorsWriter(std::filesystem::path path, std::vector<SafetensorsSlot> slots,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  static uint64_t file_bytes(std::vector<SafetensorsSlot> slots,
                             const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  // Throws std::logic_error on a wrong size or name, or when the tensor is there already.
  void add(const std::string& name, std::span<const std::byte> bytes);
  void commit();  // throws std::logic_error when a tensor is missing

 private:
  struct Layout;
  std::unique_ptr<Layout> layout_;
  std::unique_ptr<OutputFile> out_;
};

}  // namespace pare
