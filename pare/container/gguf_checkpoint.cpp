// A GGUF file as a checkpoint.

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "pare/base/error.h"
#include "pare/container/checkpoint.h"
#include "pare/container/gguf.h"
#include "pare/container/gguf_blocks.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

class GgufCheckpoint : public Checkpoint {
 public:
  explicit GgufCheckpoint(const fs::path& path) {
    const auto file = GgufFile::open(path);
    mapping_ = file->mapping();
    path_ = path;
    metadata_ = file->metadata();
    refuse_parts();
    for (const GgufEntry& e : file->entries()) add_tensor({e.name, std::string(e.type->name), e.shape, e.bytes, path});
    file_bytes_ = static_cast<int64_t>(mapping_->bytes().size());
  }

  Format format() const override { return Format::gguf; }
  bool has(const std::string& name) const override { return find(name) != nullptr; }

  std::optional<Shape> shape_of(const std::string& name) const override {
    const StoredTensor* t = find(name);
    if (!t) return std::nullopt;
    return matrix_shape(t->shape);
  }

  Weight load(const std::string& name) const override {
    const StoredTensor* t = find(name);
    if (!t)
      throw Error({.what = "the file lacks a tensor",
                   .where = path_.string(),
                   .expected = name,
                   .remedy = "the file is incomplete or of a kind of model that is not supported"});
    const GgmlTypeInfo& type = *find_ggml_type(t->type);
    if (!grid_of(type)) {
      if (const auto plain = dtype_from_name(type.name)) return FloatTensor{*plain, t->shape, t->bytes};
      throw Error({.what = "tensors of this type are not read",
                   .where = fmt::format("{}, tensor {}", path_.string(), name),
                   .expected = "a type that weights are stored in",
                   .got = std::string(type.name),
                   .remedy = "quantize the original model to another type"});
    }
    if (t->shape.size() > 2)
      throw Error({.what = "stacked matrices are not supported yet",
                   .where = fmt::format("{}, tensor {}", path_.string(), name),
                   .expected = "1 or 2 dimensions",
                   .got = std::to_string(t->shape.size())});
    return decode_blocks(type, matrix_shape(t->shape), t->bytes, fmt::format("{}, tensor {}", path_.string(), name));
  }

  std::optional<Grid> grid_of_weight(const std::string& name) const override {
    const StoredTensor* t = find(name);
    const Grid* grid = t ? grid_of(*find_ggml_type(t->type)) : nullptr;
    if (!grid) return std::nullopt;
    return *grid;
  }

  // The packed type that holds most weights.
  std::string quantization() const override {
    std::map<std::string, int64_t> weights;
    for (const StoredTensor& t : tensors())
      if (find_ggml_type(t.type)->columns > 1) weights[t.type] += matrix_shape(t.shape).size();
    if (weights.empty()) return "none";
    return std::max_element(weights.begin(), weights.end(),
                            [](const auto& a, const auto& b) { return a.second < b.second; })
        ->first;
  }

 protected:
  std::vector<const StoredTensor*> parts_of(const std::string& name) const override {
    const StoredTensor* t = find(name);
    if (!t) return {};
    return {t};
  }

 private:
  void refuse_parts() const {
    const auto count = metadata_.integer("split.count");
    if (count && *count > 1)
      throw Error({.what = "the file is one part of a split model; these are not read yet",
                   .where = path_.string(),
                   .expected = "one file",
                   .got = fmt::format("{} parts", *count),
                   .remedy = "merge the parts with llama-gguf-split --merge"});
  }

  std::shared_ptr<const MappedFile> mapping_;
};

}  // namespace

std::shared_ptr<const Checkpoint> open_gguf(const fs::path& file) { return std::make_shared<GgufCheckpoint>(file); }

}  // namespace pare
