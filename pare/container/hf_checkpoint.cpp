// A directory of safetensors or PyTorch files beside config.json. Quantized layers are read by the format that
// recognises them.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "pare/base/error.h"
#include "pare/container/checkpoint.h"
#include "pare/container/hf_format.h"
#include "pare/container/safetensors.h"
#include "pare/container/shard_index.h"
#include "pare/container/torch_file.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxWarnings = 16;

class HfCheckpoint : public Checkpoint {
 public:
  HfCheckpoint(const fs::path& directory, const fs::path& weights) {
    path_ = directory;
    read_config_file();
    if (weights.filename().string().ends_with(".index.json"))
      read_shards(weights);
    else
      read_file(weights, nullptr);
    read_aliases();
    find_format();
  }

  Format format() const override { return Format::huggingface; }

  bool has(const std::string& name) const override { return layer_of(name) != nullptr || stored(name) != nullptr; }

  std::optional<Shape> shape_of(const std::string& name) const override {
    if (const HfLayer* layer = layer_of(name)) return reader_->shape(*layer);
    if (const StoredTensor* t = stored(name)) return matrix_shape(t->shape);
    return std::nullopt;
  }

  Weight load(const std::string& name) const override {
    if (const HfLayer* layer = layer_of(name)) return reader_->load(*layer);
    const StoredTensor* t = stored(name);
    if (!t)
      throw Error({.what = "the checkpoint lacks a tensor",
                   .where = path_.string(),
                   .expected = name,
                   .remedy = "the checkpoint is incomplete or its config.json belongs to another model"});
    return FloatTensor{*dtype_from_name(t->type), t->shape, t->bytes};
  }

  std::optional<Grid> grid_of_weight(const std::string& name) const override {
    const HfLayer* layer = layer_of(name);
    if (!layer) return std::nullopt;
    return reader_->grid(*layer);
  }

  std::string quantization() const override {
    if (!reader_ || reader_->layers().empty()) return "none";
    std::map<std::string, int64_t> weights;  // by grid
    for (const auto& [name, layer] : reader_->layers())
      weights[name_of(reader_->rough_grid(layer))] += reader_->shape(layer).size();
    const auto most = std::max_element(weights.begin(), weights.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    return fmt::format("{} {}{}", reader_->convention(), most->first, weights.size() > 1 ? " and others" : "");
  }

  std::vector<std::string> weights() const override {
    std::map<const StoredTensor*, const std::string*> layer_of_part;
    if (reader_)
      for (const auto& [name, layer] : reader_->layers())
        for (const StoredTensor* part : layer.parts)
          if (part) layer_of_part.emplace(part, &name);
    std::set<std::string> seen;
    std::vector<std::string> out;
    for (const StoredTensor& t : tensors()) {
      const auto at = layer_of_part.find(&t);
      if (at == layer_of_part.end())
        out.push_back(t.name);
      else if (seen.insert(*at->second).second)
        out.push_back(*at->second);
    }
    return out;
  }

 protected:
  std::vector<const StoredTensor*> parts_of(const std::string& name) const override {
    std::vector<const StoredTensor*> out;
    if (const HfLayer* layer = layer_of(name)) {
      std::copy_if(layer->parts.begin(), layer->parts.end(), std::back_inserter(out),
                   [](const StoredTensor* t) { return t != nullptr; });
    } else if (const StoredTensor* t = stored(name)) {
      out.push_back(t);
    }
    return out;
  }

 private:
  void read_config_file() {
    const fs::path file = path_ / "config.json";
    if (!fs::exists(file))
      throw Error({.what = "there is no config.json beside the weights",
                   .where = path_.string(),
                   .expected = "config.json",
                   .remedy = "fetch the whole model directory"});
    config_ = read_json_file(file.string());
    if (!config_.is_object())
      throw Error({.what = "config.json is no JSON object", .where = file.string(), .got = config_.type_name()});
  }

  void read_file(const fs::path& path, const ShardIndex* index) {
    if (is_torch(path))
      add_file(TorchFile::open(path), path, index);
    else
      add_file(SafetensorsFile::open(path), path, index);
  }

  // By content: files of torch.save also come under other names.
  static bool is_torch(const fs::path& path) {
    const auto file = MappedFile::open(path);
    const auto start = file->bytes().first(std::min<size_t>(16, file->bytes().size()));
    return TorchFile::is_one({reinterpret_cast<const char*>(start.data()), start.size()});
  }

  // With an index, only tensors that it maps to this file count.
  template <class File>
  void add_file(std::shared_ptr<const File> file, const fs::path& path, const ShardIndex* index) {
    file_bytes_ += static_cast<int64_t>(file->file_bytes());
    for (const auto& e : file->entries()) {
      if (index) {
        const auto mapped = index->weight_map.find(e.name);
        if (mapped == index->weight_map.end() || mapped->second != path.filename().string()) {
          warn(fmt::format("{} holds {}, which the index does not place there; ignored", path.string(), e.name));
          continue;
        }
      }
      add_tensor({e.name, std::string(info(e.dtype).name), e.shape, e.bytes, path});
    }
    for (const auto& [key, value] : file->metadata()) noted_.emplace(key, value);
    files_.push_back(std::move(file));
  }

  void read_shards(const fs::path& index_path) {
    const ShardIndex index = read_shard_index(index_path);
    for (const std::string& name : index.files()) {
      if (!name.ends_with(".safetensors") && !name.ends_with(".bin"))
        throw Error({.what = "the index names a file that is no file of weights",
                     .where = index_path.string(),
                     .got = name,
                     .remedy = "save the model as safetensors"});
      if (!fs::exists(path_ / name))
        throw Error({.what = "a shard of the model is missing",
                     .where = index_path.string(),
                     .expected = name,
                     .got = "no such file",
                     .remedy = "fetch the missing file"});
      read_file(path_ / name, &index);
    }
    for (const auto& [tensor, file] : index.weight_map)
      if (!find(tensor))
        throw Error({.what = "a shard lacks a tensor that the index places there",
                     .where = (path_ / file).string(),
                     .expected = tensor,
                     .remedy = "the shards belong to different models; fetch them again"});
  }

  // Some tools drop a tensor that shares another's memory and record "dropped name": "stored name" in __metadata__.
  void read_aliases() {
    for (const auto& [alias, target] : noted_)
      if (!find(alias) && find(target)) aliases_.emplace(alias, target);
  }

  void find_format() {
    auto [quantization, where] = find_quantization_config();
    const HfFiles files{.config = config_,
                        .quantization = std::move(quantization),
                        .where = std::move(where),
                        .model = path_,
                        .tensors = tensors(),
                        .find = [this](const std::string& name) { return find(name); },
                        .warn = [this](std::string text) { warn(std::move(text)); }};
    if (!files.quantization.is_null() && !files.quantization.is_object())
      refuse_config(files, "the quantization config is no JSON object", "an object", files.quantization.type_name());
    for (const HfFormat* format : all_hf_formats()) {
      if (!format->matches || !format->matches(files)) continue;
      reader_ = format->open(files);
      return;
    }
    refuse_unknown(files);
  }

  static void refuse_unknown(const HfFiles& files) {
    if (files.quantization.is_null()) return;
    const std::string method = files.method().substr(0, 64);
    if (!method.empty())
      refuse_config(files, fmt::format("reading {} checkpoints is not built yet", method),
                    "float weights, or a method that Pare reads", fmt::format("quant_method \"{}\"", method));
  }

  std::pair<Json, std::string> find_quantization_config() const {
    const fs::path main = path_ / "config.json";
    for (const char* key : {"quantization_config", "compression_config", "quantization"})
      if (const auto at = config_.find(key); at != config_.end() && !at->is_null()) return {*at, main.string()};
    const bool packed = std::any_of(tensors().begin(), tensors().end(),
                                    [](const StoredTensor& t) { return t.name.ends_with(".qweight"); });
    if (!packed) return {Json(), main.string()};
    for (const char* name : {"quantize_config.json", "quant_config.json"})
      if (fs::exists(path_ / name)) return {read_json_file((path_ / name).string()), (path_ / name).string()};
    return {Json(), main.string()};
  }

  const std::string& resolved(const std::string& name) const {
    const auto at = aliases_.find(name);
    return at == aliases_.end() ? name : at->second;
  }
  const StoredTensor* stored(const std::string& name) const { return find(resolved(name)); }
  const HfLayer* layer_of(const std::string& name) const {
    if (!reader_) return nullptr;
    const auto at = reader_->layers().find(name);
    return at == reader_->layers().end() ? nullptr : &at->second;
  }
  void warn(std::string text) {
    if (warnings_.size() < kMaxWarnings) warnings_.push_back(std::move(text));
  }

  std::vector<std::shared_ptr<const void>> files_;  // keep the mappings alive
  std::map<std::string, std::string> noted_;        // __metadata__ of all files
  std::unique_ptr<HfReader> reader_;                // null: nothing is quantized
};

}  // namespace

std::shared_ptr<const Checkpoint> open_huggingface(const fs::path& directory, const fs::path& weights) {
  return std::make_shared<HfCheckpoint>(directory, weights);
}

}  // namespace pare
