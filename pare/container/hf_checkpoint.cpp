// A directory of safetensors files beside config.json, float or GPTQ.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "pare/base/error.h"
#include "pare/container/checkpoint.h"
#include "pare/container/gptq_config.h"
#include "pare/container/gptq_tensors.h"
#include "pare/container/safetensors.h"
#include "pare/container/shard_index.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeight = ".weight";
constexpr size_t kMaxWarnings = 16;

std::optional<std::string> without_suffix(const std::string& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

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
    find_modules();
    read_quantization_config();
  }

  Format format() const override { return Format::huggingface; }

  bool has(const std::string& name) const override { return module_of(name) != nullptr || stored(name) != nullptr; }

  std::optional<Shape> shape_of(const std::string& name) const override {
    if (const GptqParts* parts = module_of(name)) return gptq_layout(*parts).shape();
    if (const StoredTensor* t = stored(name)) return matrix_shape(t->shape);
    return std::nullopt;
  }

  Weight load(const std::string& name) const override {
    if (const GptqParts* parts = module_of(name)) return decode_gptq(*parts, convention_);
    const StoredTensor* t = stored(name);
    if (!t)
      throw Error({.what = "the checkpoint lacks a tensor",
                   .where = path_.string(),
                   .expected = name,
                   .remedy = "the checkpoint is incomplete or its config.json belongs to another model"});
    return FloatTensor{*dtype_from_name(t->type), t->shape, t->bytes};
  }

  std::optional<Grid> grid_of_weight(const std::string& name) const override {
    const GptqParts* parts = module_of(name);
    if (!parts) return std::nullopt;
    return gptq_spec(*parts, convention_);
  }

  std::string quantization() const override {
    if (modules_.empty()) return "none";
    std::map<std::string, int64_t> weights;  // by grid
    for (const auto& [module, parts] : modules_) {
      const GptqLayout l = gptq_layout(parts);
      const AffineSpec spec{.bits = l.bits, .group = l.groups == 1 ? 0 : l.group(), .symmetric = convention_.symmetric};
      weights[name_of(spec)] += l.shape().size();
    }
    const auto most = std::max_element(weights.begin(), weights.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    return fmt::format("gptq {}{}", most->first, weights.size() > 1 ? " and others" : "");
  }

 protected:
  std::vector<const StoredTensor*> parts_of(const std::string& name) const override {
    std::vector<const StoredTensor*> out;
    if (const GptqParts* parts = module_of(name)) {
      for (const StoredTensor* t : {parts->qweight, parts->qzeros, parts->scales, parts->g_idx})
        if (t) out.push_back(t);
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

  // With an index, only tensors that it maps to this file count.
  void read_file(const fs::path& path, const ShardIndex* index) {
    const auto file = SafetensorsFile::open(path);
    file_bytes_ += static_cast<int64_t>(file->file_bytes());
    for (const SafetensorsEntry& e : file->entries()) {
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
    files_.push_back(file);
  }

  void read_shards(const fs::path& index_path) {
    const ShardIndex index = read_shard_index(index_path);
    for (const std::string& name : index.files()) {
      if (!name.ends_with(".safetensors"))
        throw Error({.what = "the index names a file that is no safetensors file",
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

  void find_modules() {
    for (const StoredTensor& t : tensors()) {
      const auto module = without_suffix(t.name, ".qweight");
      if (!module) continue;
      const GptqParts parts{*module, &t, find(*module + ".qzeros"), find(*module + ".scales"),
                            find(*module + ".g_idx")};
      if (find(*module + ".weight"))
        throw Error({.what = "the checkpoint holds a layer twice, quantized and not",
                     .where = t.file.string(),
                     .got = *module,
                     .remedy = "the checkpoint is damaged"});
      modules_.emplace(*module, parts);
    }
  }

  void read_quantization_config() {
    const auto [json, where] = find_quantization_config();
    if (json.is_null() && modules_.empty()) return;
    convention_ = read_gptq_config(json, where);
    for (const auto& [module, parts] : modules_) {
      if (!parts.qzeros || !parts.scales)
        throw Error({.what = "a quantized layer is incomplete",
                     .where = fmt::format("{}, {}", parts.qweight->file.string(), module),
                     .expected = "qweight, qzeros and scales",
                     .got = parts.scales ? "no qzeros" : "no scales",
                     .remedy = "the checkpoint is damaged, or of a kind that is not read yet"});
      refuse_awq(parts);
    }
    if (!modules_.empty() && contradicts_format(modules_.begin()->second, convention_))
      warn(
          fmt::format("{}: the zero points contradict the checkpoint_format; symmetric zero points are read as the "
                      "middle code",
                      where));
  }

  // AWQ packs along the outputs: eight times as many scales as columns of words. Without a config it is known by that.
  static void refuse_awq(const GptqParts& parts) {
    const auto &words = parts.qweight->shape, &scales = parts.scales->shape;
    if (words.size() == 2 && scales.size() == 2 && words[1] > 0 && scales[1] == 8 * words[1])
      throw Error({.what = "reading awq checkpoints is not built yet",
                   .where = fmt::format("{}, {}", parts.qweight->file.string(), parts.module),
                   .expected = "float weights or GPTQ",
                   .remedy = "give the original model, or save this one as GPTQ"});
  }

  std::pair<Json, std::string> find_quantization_config() const {
    const fs::path main = path_ / "config.json";
    for (const char* key : {"quantization_config", "compression_config"})
      if (const auto at = config_.find(key); at != config_.end() && !at->is_null()) return {*at, main.string()};
    if (modules_.empty()) return {Json(), main.string()};
    for (const char* name : {"quantize_config.json", "quant_config.json"})
      if (fs::exists(path_ / name)) return {read_json_file((path_ / name).string()), (path_ / name).string()};
    return {Json(), main.string()};
  }

  const std::string& resolved(const std::string& name) const {
    const auto at = aliases_.find(name);
    return at == aliases_.end() ? name : at->second;
  }
  const StoredTensor* stored(const std::string& name) const { return find(resolved(name)); }
  const GptqParts* module_of(const std::string& name) const {
    const auto module = without_suffix(name, kWeight);
    if (!module) return nullptr;
    const auto at = modules_.find(*module);
    return at == modules_.end() ? nullptr : &at->second;
  }
  void warn(std::string text) {
    if (warnings_.size() < kMaxWarnings) warnings_.push_back(std::move(text));
  }

  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::map<std::string, std::string> noted_;  // __metadata__ of all files
  std::map<std::string, GptqParts> modules_;
  GptqConvention convention_;
};

}  // namespace

std::shared_ptr<const Checkpoint> open_huggingface(const fs::path& directory, const fs::path& weights) {
  return std::make_shared<HfCheckpoint>(directory, weights);
}

}  // namespace pare
