#include "pare/quantize/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "pare/container/gguf.h"
#include "pare/container/gguf_blocks.h"
#include "pare/model/gguf_export.h"
#include "pare/quantize/layout_from_gguf.h"
#include "pare/quantize/mixture.h"
#include "pare/tokenizer/tokenizer.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

// ---- Hugging Face: names, order and types stay

// `stored` is the weight's name in the checkpoint, `name` the one by which the model asks for it.
PlannedTensor keep(const Checkpoint& checkpoint, const std::string& stored, const std::string& name,
                   const TensorNames& names) {
  PlannedTensor t{.name = name, .source = name, .shape = {}, .from = {}};
  const auto grid = checkpoint.grid_of_weight(stored);
  if (grid) {
    const Shape shape = checkpoint.shape_of(stored).value_or(Shape{});
    t.shape = {shape.rows, shape.cols};
    t.from = name_of(*grid);
    t.target = DType::f16;
  } else {
    const StoredTensor& s = *checkpoint.find(stored);
    t.shape = s.shape;
    t.from = s.type;
    t.target = *dtype_from_name(s.type);
  }
  const auto place = names.place(name);
  if (!place) return t;
  t.role = place->tensor->role;
  t.layer = place->layer;
  t.transposed = place->tensor->transposed && t.shape.size() == 2 && !grid;
  if (t.transposed) std::swap(t.shape[0], t.shape[1]);
  return t;
}

std::vector<PlannedTensor> lay_out_huggingface(const Plan& plan) {
  const Checkpoint& checkpoint = *plan.checkpoint;
  const TensorNames names(*plan.arch, checkpoint);
  std::vector<PlannedTensor> out;
  for (const std::string& stored : checkpoint.weights())
    out.push_back(keep(checkpoint, stored, sought_name(plan.config, *plan.arch, checkpoint, stored), names));
  return out;
}

bool is_carried(const std::string& name) {
  constexpr std::array<std::string_view, 14> kStarts = {"tokenizer",        "vocab",
                                                        "merges",           "special_tokens_map",
                                                        "added_tokens",     "generation_config",
                                                        "chat_template",    "preprocessor_config",
                                                        "processor_config", "spiece",
                                                        "sentencepiece",    "LICENSE",
                                                        "NOTICE",           "USE_POLICY"};
  return name.ends_with(".tiktoken") || name.ends_with(".jinja") || name.ends_with(".py") ||
         std::any_of(kStarts.begin(), kStarts.end(), [&](std::string_view s) { return name.starts_with(s); });
}

// The type of the matrices that a conversion turned into floats, as config.json spells it; unset: none were.
std::optional<std::string> converted_floats(const Plan& plan) {
  static const std::map<DType, std::string> kNames = {
      {DType::f32, "float32"}, {DType::f16, "float16"}, {DType::bf16, "bfloat16"}};
  for (const PlannedTensor& t : plan.tensors)
    if (t.method == Method::convert && t.layer >= 0 && t.shape.size() == 2 && !t.on_grid() &&
        name_of(t.target) != t.from)
      if (const auto at = kNames.find(std::get<DType>(t.target)); at != kNames.end()) return at->second;
  return std::nullopt;
}

void describe_huggingface(Plan& plan) {
  OutputPlan& out = plan.output;
  out.config = plan.checkpoint->config();
  for (const char* old : {"quantization_config", "compression_config", "quantization"}) out.config.erase(old);
  for (const char* key : {"torch_dtype", "dtype"})
    if (const auto type = converted_floats(plan); type && out.config.contains(key)) out.config[key] = *type;
  out.aliases = plan.checkpoint->aliases();
  const Settings& s = plan.settings;
  out.quantization = {{"desc_act", s.gptq.order == ColumnOrder::stored && s.recipe.method == Method::gptq},
                      {"damp_percent", s.gptq.damp},
                      {"static_groups", s.gptq.static_groups},
                      {"true_sequential", s.true_sequential}};
  for (const auto& entry : fs::directory_iterator(plan.checkpoint->path()))
    if (entry.is_regular_file() && is_carried(entry.path().filename().string())) out.carried.push_back(entry.path());
  std::sort(out.carried.begin(), out.carried.end());
  out.max_shard_bytes = s.max_shard_bytes;
}

std::string stored_type(const Checkpoint& checkpoint, const std::string& name) {
  if (const auto grid = checkpoint.grid_of_weight(name)) return name_of(*grid);
  const Weight weight = checkpoint.load(name);
  if (const auto* plain = std::get_if<FloatTensor>(&weight)) return std::string(info(plain->dtype).name);
  return "quantized";
}

// ---- GGUF: renamed, reordered, norms in f32

std::vector<PlannedTensor> lay_out_gguf(const Plan& plan) {
  std::vector<PlannedTensor> out;
  for (auto& [name, values] : gguf_extra_tensors(plan.config))
    out.push_back({.name = name,
                   .source = {},
                   .shape = {static_cast<int64_t>(values.size())},
                   .from = "made",
                   .target = DType::f32,
                   .made = std::move(values)});
  for (const GgufTensorPlan& g : gguf_tensors(plan.config, *plan.arch, *plan.checkpoint)) {
    PlannedTensor t{.name = g.gguf_name, .source = g.hf_name, .shape = g.shape, .from = {}};
    t.from = stored_type(*plan.checkpoint, g.hf_name);
    t.target = g.kept_f32 || g.shape.size() < 2 ? DType::f32 : DType::f16;
    if (!g.kept_f32 || g.layer < 0) t.role = g.role;
    t.layer = g.layer;
    t.transposed = g.transposed && g.shape.size() == 2;
    t.added = g.added;
    if (g.row_order != RowOrder::as_is)
      t.row_order = gguf_row_permutation(plan.config, *find_tensor(*plan.arch, g.role), g.shape.front());
    out.push_back(std::move(t));
  }
  return out;
}

// general.file_type names the type of most linears; these are the reference's numbers (formats.md §3.2).
uint32_t file_type_of(const Recipe& recipe) {
  if (const Mixture* mixture = find_mixture(recipe.mixture)) return mixture->file_type;
  static const std::map<std::string, uint32_t> kTypes = {{"f32", 0},  {"f16", 1},   {"bf16", 32}, {"q4_0", 2},
                                                         {"q8_0", 7}, {"q4_k", 14}, {"q6_k", 18}};
  const std::string name = name_of(recipe.linear);
  if (const auto at = kTypes.find(name); at != kTypes.end()) return at->second;
  for (const Mixture& mixture : all_mixtures())
    if (mixture.base == name) return mixture.file_type;
  return 1;
}

// A GGUF file made from another keeps what that one says; only what changed is said anew.
void describe_again(Plan& plan) {
  Metadata& out = plan.output.metadata;
  for (const auto& [key, value] : plan.checkpoint->metadata().entries())
    if (!key.starts_with("split.")) out.append(key, value);
  out.set("general.file_type", file_type_of(plan.settings.recipe));
  out.set("general.quantization_version", uint32_t{2});
}

void describe_gguf(Plan& plan) {
  if (plan.checkpoint->format() == Format::gguf) return describe_again(plan);
  const std::string name = gguf_model_name(fs::absolute(plan.checkpoint->path()).lexically_normal());
  int64_t parameters = 0;
  for (const PlannedTensor& t : plan.tensors)
    if (!t.source.empty()) parameters += t.size();
  Metadata& out = plan.output.metadata;
  out = gguf_metadata(plan.config, *plan.arch, plan.checkpoint->config(), name, parameters,
                      file_type_of(plan.settings.recipe));
  out.set("general.quantization_version", uint32_t{2});
  const Metadata vocabulary = gguf_vocabulary(plan.checkpoint->path(), plan.config.vocab);
  for (const auto& [key, value] : vocabulary.entries()) out.set(key, value);
  if (plan.arch->gguf_tokens) plan.arch->gguf_tokens(out);
}

}  // namespace

std::vector<PlannedTensor> lay_out(const Plan& plan) {
  if (plan.container->name == "gguf") return lay_out_gguf(plan);
  return plan.checkpoint->format() == Format::gguf ? lay_out_from_gguf(plan) : lay_out_huggingface(plan);
}

void describe_output(Plan& plan) {
  if (plan.container->name == "gguf")
    describe_gguf(plan);
  else if (plan.checkpoint->format() == Format::gguf)
    describe_from_gguf(plan);
  else
    describe_huggingface(plan);
}

}  // namespace pare
