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
    const auto count = file->metadata().integer("split.count");
    path_ = path;
    if (!count || *count <= 1) {
      metadata_ = file->metadata();
      take(*file, path);
      return;
    }
    const std::vector<fs::path> parts = gguf_parts(path);
    if (std::ssize(parts) != *count) refuse_part_name(*count);
    for (size_t i = 0; i < parts.size(); ++i) take_part(parts[i], static_cast<int64_t>(i), *count);
    path_ = parts.front();
    check_all_there();
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
    refuse_second_scale(*t);
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
  // Files made from NVFP4 checkpoints keep one more scale per matrix beside it. Leaving it out would be silently wrong.
  void refuse_second_scale(const StoredTensor& t) const {
    constexpr std::string_view kWeight = ".weight";
    if (t.type != "nvfp4" || !t.name.ends_with(kWeight)) return;
    const std::string scale = t.name.substr(0, t.name.size() - kWeight.size()) + ".scale";
    if (find(scale))
      throw Error({.what = "nvfp4 matrices with a scale of their own beside them are not read yet",
                   .where = fmt::format("{}, tensor {}", path_.string(), t.name),
                   .got = scale,
                   .remedy = "give the checkpoint that the file was made from"});
  }

  void take(const GgufFile& file, const fs::path& path) {
    mappings_.push_back(file.mapping());
    file_bytes_ += static_cast<int64_t>(file.mapping()->bytes().size());
    for (const GgufEntry& e : file.entries()) {
      if (find(e.name))
        throw Error({.what = "two parts of the model hold the same tensor",
                     .where = path.string(),
                     .got = e.name,
                     .remedy = "the parts are not of one model: fetch them again"});
      add_tensor({e.name, std::string(e.type->name), e.shape, e.bytes, path});
    }
  }

  // Part `number` of `count`, from 0; the first has the keys.
  void take_part(const fs::path& path, int64_t number, int64_t count) {
    if (!fs::exists(path))
      throw Error({.what = "a part of the split model is missing",
                   .where = path.string(),
                   .expected = fmt::format("{} parts beside each other", count),
                   .remedy = "fetch the missing part"});
    const auto file = GgufFile::open(path);
    const auto own_number = file->metadata().integer("split.no"), own_count = file->metadata().integer("split.count");
    if (own_number != number || own_count != count)
      throw Error({.what = "the file is not the part of the model that its name says",
                   .where = path.string(),
                   .expected = fmt::format("split.no {} of split.count {}", number, count),
                   .got = fmt::format("{} of {}", own_number.value_or(-1), own_count.value_or(-1)),
                   .remedy = "give the parts back the names they were fetched under"});
    if (number == 0) metadata_ = file->metadata();
    take(*file, path);
  }

  void check_all_there() const {
    const auto total = metadata_.integer("split.tensors.count");
    if (total && *total != std::ssize(tensors()))
      throw Error({.what = "the parts do not hold all tensors of the model",
                   .where = path_.string(),
                   .expected = fmt::format("{} tensors", *total),
                   .got = std::to_string(tensors().size()),
                   .remedy = "fetch the parts again"});
  }

  [[noreturn]] void refuse_part_name(int64_t count) const {
    throw Error({.what = "the file is one part of a split model, and its name does not say where the others are",
                 .where = path_.string(),
                 .expected = fmt::format("NAME-00001-of-{:05}.gguf and the other parts beside it", count),
                 .remedy = "give the parts back the names they were fetched under"});
  }

  std::vector<std::shared_ptr<const MappedFile>> mappings_;
};

}  // namespace

std::shared_ptr<const Checkpoint> open_gguf(const fs::path& file) { return std::make_shared<GgufCheckpoint>(file); }

}  // namespace pare
