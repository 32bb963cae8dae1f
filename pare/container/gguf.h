// The GGUF file, versions 2 and 3: reading with the reference's checks and more, writing version 3.
// Source: formats.md §3.1-3.2 (ggml gguf.cpp, docs/gguf.md).
//
//   "GGUF" | u32 version | i64 tensors | i64 keys
//   keys ×    { string key | i32 type | value }            string: u64 length, bytes
//   tensors × { string name | u32 n | i64 ne[n] | i32 type | u64 offset }    ne[0] is the fastest dimension
//   zeros up to a multiple of the alignment | data: every tensor padded with zeros to the alignment
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "pare/base/mapped_file.h"
#include "pare/base/metadata.h"
#include "pare/base/output.h"

namespace pare {

// The types of the format, in one table; ids are the file's.
struct GgmlTypeInfo {
  int id;
  std::string_view name;  // "q4_k", "f32"
  int64_t columns;        // per block
  int64_t bytes;          // per block
};
std::span<const GgmlTypeInfo> ggml_types();
const GgmlTypeInfo* find_ggml_type(int id);
const GgmlTypeInfo* find_ggml_type(std::string_view name);
uint64_t ggml_bytes(const GgmlTypeInfo& type, const std::vector<int64_t>& shape);  // shape outermost first

inline constexpr uint64_t kGgufAlignment = 32;  // where general.alignment is absent

struct GgufEntry {
  std::string name;
  const GgmlTypeInfo* type = nullptr;
  std::vector<int64_t> shape;  // outermost first (the reverse of the file's ne)
  std::span<const std::byte> bytes;
};

class GgufFile {
 public:
  // Throws Error naming file, key or tensor and offset for anything the specification forbids.
  static std::shared_ptr<const GgufFile> open(const std::filesystem::path& path);
  const Metadata& metadata() const { return metadata_; }
  const std::vector<GgufEntry>& entries() const { return entries_; }  // in file order
  int version() const { return version_; }
  const std::filesystem::path& path() const { return file_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const { return file_; }  // keeps the entries' bytes alive

 private:
  std::shared_ptr<const MappedFile> file_;
  Metadata metadata_;
  std::vector<GgufEntry> entries_;
  int version_ = 3;
};

// The parts of a split model in order, from the name of any of them: NAME-00002-of-00003.gguf. Empty for other names.
std::vector<std::filesystem::path> gguf_parts(const std::filesystem::path& any);

struct GgufSlot {
  std::string name;
  const GgmlTypeInfo* type = nullptr;
  std::vector<int64_t> shape;  // outermost first
};

// As SafetensorsWriter: everything but the data is fixed at construction. Keys and tensors keep their order.
class GgufWriter {
 public:
  // Throws Error when a name is longer than the format allows.
  GgufWriter(std::filesystem::path path, const Metadata& metadata, std::vector<GgufSlot> slots);
  ~GgufWriter();
  static uint64_t file_bytes(const Metadata& metadata, const std::vector<GgufSlot>& slots);
  // Throws std::logic_error on a wrong size or name, or when the tensor is there already.
  void add(const std::string& name, std::span<const std::byte> bytes);
  void seal();  // synced, whole under staged(); throws std::logic_error when a tensor is missing
  const std::filesystem::path& staged() const { return out_->temporary_path(); }
  void commit();  // seals, then appears under its name

 private:
  struct Layout;
  std::unique_ptr<Layout> layout_;
  std::unique_ptr<OutputFile> out_;
};

}  // namespace pare
