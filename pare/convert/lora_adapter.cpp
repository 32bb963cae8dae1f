#include "pare/convert/lora_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <regex>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/base/threads.h"
#include "pare/container/checkpoint.h"
#include "pare/container/safetensors.h"
#include "pare/container/torch_file.h"
#include "pare/quantize/source.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& what, const std::string& where, std::string expected = {},
                         std::string got = {}) {
  throw Error({.what = what,
               .where = where,
               .expected = std::move(expected),
               .got = std::move(got),
               .remedy = "merge it with the tool that made it, or fetch the adapter again"});
}

// ---- adapter_config.json

class LoraConfig {
 public:
  explicit LoraConfig(const fs::path& file) : where_(file.string()) {
    if (!fs::exists(file))
      refuse("this is no PEFT adapter", file.parent_path().string(), "adapter_config.json", "none");
    json_ = read_json_file(where_);
    if (!json_.is_object()) refuse("the adapter's configuration is no JSON object", where_);
    if (text("peft_type") != "LORA")
      refuse("only LoRA adapters are merged", where_, "peft_type LORA", text("peft_type"));
    for (const char* unsupported : {"use_qalora", "lora_bias", "alora_invocation_tokens", "megatron_config",
                                    "layer_replication", "trainable_token_indices", "target_parameters"})
      if (const auto at = json_.find(unsupported); at != json_.end() && is_set(*at))
        refuse(fmt::format("adapters with {} are not merged", unsupported), where_);
  }

  float scale(const std::string& module, int64_t rank) const {
    const double alpha = pattern("alpha_pattern", module, number("lora_alpha", 8)),
                 stated = pattern("rank_pattern", module, number("r", 8));
    if (stated != static_cast<double>(rank))
      refuse("the adapter's matrices are not of the rank that its configuration states", where_ + ", " + module,
             fmt::format("{}", stated), std::to_string(rank));
    const auto root = json_.find("use_rslora");
    const bool rslora = root != json_.end() && root->is_boolean() && root->get<bool>();
    return static_cast<float>(alpha / (rslora ? std::sqrt(stated) : stated));
  }
  std::string text(const char* key) const {
    const auto at = json_.find(key);
    return at != json_.end() && at->is_string() ? at->get<std::string>() : std::string();
  }

 private:
  static bool is_set(const Json& value) {
    return !(value.is_null() || value == Json(false) || ((value.is_array() || value.is_object()) && value.empty()));
  }
  double number(const char* key, double otherwise) const {
    const auto at = json_.find(key);
    if (at == json_.end() || at->is_null()) return otherwise;
    if (!at->is_number()) refuse(fmt::format("\"{}\" is no number", key), where_, "a number", at->dump());
    return at->get<double>();
  }
  // A key names a module whose path it ends, or is a regular expression for such an end; the first that matches holds.
  double pattern(const char* key, const std::string& module, double otherwise) const {
    const auto at = json_.find(key);
    if (at == json_.end() || !at->is_object()) return otherwise;
    for (const auto& [name, value] : at->items()) {
      if (!value.is_number()) refuse(fmt::format("\"{}\" holds something else than numbers", key), where_);
      if (module == name || module.ends_with("." + name) || matches(name, module)) return value.get<double>();
    }
    return otherwise;
  }
  bool matches(const std::string& pattern, const std::string& module) const {
    if (pattern.size() > 1000) refuse("a pattern is too long", where_);
    try {
      return std::regex_match(module, std::regex("(.*\\.)?(" + pattern + ")"));
    } catch (const std::regex_error& e) {
      refuse("a pattern is no regular expression", where_, "a regular expression", pattern);
    }
  }

  std::string where_;
  Json json_;
};

// ---- the tensors

std::map<std::string, Matrix> read_tensors(const fs::path& directory) {
  std::map<std::string, Matrix> out;
  const auto add = [&](const auto& file, const fs::path& path) {
    for (const auto& e : file->entries()) {
      const std::string where = fmt::format("{}, tensor {}", path.string(), e.name);
      if (e.shape.size() > 2) refuse("a tensor of the adapter is no matrix", where);
      Matrix m = values_of(FloatTensor{e.dtype, e.shape, e.bytes}, where);
      check_finite(m, where);
      out.emplace(e.name, std::move(m));
    }
  };
  if (const fs::path file = directory / "adapter_model.safetensors"; fs::exists(file))
    add(SafetensorsFile::open(file), file);
  else if (const fs::path torch = directory / "adapter_model.bin"; fs::exists(torch))
    add(TorchFile::open(torch), torch);
  else
    refuse("the adapter's weights are missing", directory.string(), "adapter_model.safetensors or adapter_model.bin",
           "neither");
  return out;
}

// The parts of a module's adapter, by what their names end in.
enum class Part : uint8_t { a, b, embedding_a, embedding_b, magnitude, saved };
struct Ending {
  std::string_view text;
  Part part;
};
constexpr Ending kEndings[] = {{".lora_A.weight", Part::a},
                               {".lora_B.weight", Part::b},
                               {".lora_A.default.weight", Part::a},
                               {".lora_B.default.weight", Part::b},
                               {".lora_embedding_A", Part::embedding_a},
                               {".lora_embedding_B", Part::embedding_b},
                               {".lora_embedding_A.default", Part::embedding_a},
                               {".lora_embedding_B.default", Part::embedding_b},
                               {".lora_magnitude_vector", Part::magnitude},
                               {".lora_magnitude_vector.weight", Part::magnitude},
                               {".lora_magnitude_vector.default.weight", Part::magnitude}};

// "base_model.model.model.layers.0.q_proj" -> "model.layers.0.q_proj"
std::string without_wrapper(std::string name) {
  for (const std::string_view wrapper : {"base_model.model.", "base_model."})
    if (name.starts_with(wrapper)) return name.substr(wrapper.size());
  return name;
}
// "lm_head.modules_to_save.default.weight" -> "lm_head.weight"
std::string saved_name(std::string name) {
  for (const std::string_view part : {".modules_to_save.default", ".modules_to_save", ".base_layer"})
    if (const size_t at = name.find(part); at != std::string::npos) name.erase(at, part.size());
  return name;
}

void put(LoraModule& m, Part part, Matrix values) {
  switch (part) {
    case Part::embedding_a:
      m.embedding = true;
      [[fallthrough]];
    case Part::a:
      m.a = std::move(values);
      return;
    case Part::embedding_b:
      m.embedding = true;
      [[fallthrough]];
    case Part::b:
      m.b = std::move(values);
      return;
    case Part::magnitude:
      m.magnitude = std::vector<float>(values.values().begin(), values.values().end());
      return;
    case Part::saved:
      return;
  }
}

}  // namespace

LoraAdapter LoraAdapter::read(const fs::path& directory) {
  const LoraConfig config(directory / "adapter_config.json");
  LoraAdapter out;
  out.base = config.text("base_model_name_or_path");
  for (auto& [stored, values] : read_tensors(directory)) {
    const std::string name = without_wrapper(stored);
    const auto* ending = std::find_if(std::begin(kEndings), std::end(kEndings),
                                      [&](const Ending& e) { return std::string_view(name).ends_with(e.text); });
    if (ending != std::end(kEndings))
      put(out.modules[name.substr(0, name.size() - ending->text.size())], ending->part, std::move(values));
    else if (name.find("lora_") != std::string::npos)
      refuse("a tensor of the adapter is of a kind that is not merged", directory.string(), "lora_A, lora_B, …",
             stored);
    else
      out.replaced.emplace(saved_name(name), std::move(values));
  }
  for (auto& [name, m] : out.modules) {
    const std::string where = fmt::format("{}, {}", directory.string(), name);
    if (m.a.empty() || m.b.empty())
      refuse("half of a module's adapter is missing", where, "lora_A and lora_B",
             m.a.empty() ? "no lora_A" : "no lora_B");
    if (m.a.rows() != m.b.cols())
      refuse("the two matrices of an adapter do not fit each other", where,
             fmt::format("{} columns in lora_B", m.a.rows()), std::to_string(m.b.cols()));
    if (m.embedding && m.magnitude) refuse("DoRA of an embedding is not merged", where);
    m.scale = config.scale(name, m.a.rows());
  }
  if (out.modules.empty() && out.replaced.empty()) refuse("the adapter holds nothing", directory.string());
  return out;
}

namespace {

// One row of W + scale · B A: sums in the order of the ranks, whatever the number of threads.
void add_product(const LoraModule& m, int64_t row, std::span<float> w) {
  std::vector<float> sum(w.size(), 0.0f);
  const int64_t rank = m.a.rows();
  for (int64_t k = 0; k < rank; ++k) {
    const float factor = m.embedding ? m.a(k, row) : m.b(row, k);
    for (size_t c = 0; c < w.size(); ++c) {
      const auto i = static_cast<int64_t>(c);
      sum[c] += factor * (m.embedding ? m.b(i, k) : m.a(k, i));
    }
  }
  for (size_t c = 0; c < w.size(); ++c) w[c] += m.scale * sum[c];
}

void rescale(std::span<float> w, float length) {
  double power = 0;
  for (const float x : w) power += static_cast<double>(x) * x;
  const double factor = power > 0 ? length / std::sqrt(power) : 0;
  for (float& x : w) x = static_cast<float>(x * factor);
}

}  // namespace

void merge(const LoraModule& m, Matrix& w, const std::string& tensor) {
  const Shape wanted = m.embedding ? Shape{m.a.cols(), m.b.rows()} : Shape{m.b.rows(), m.a.cols()};
  const bool fits = w.shape() == wanted && (!m.magnitude || std::ssize(*m.magnitude) == w.rows());
  if (!fits)
    throw Error({.what = "the adapter is of another base",
                 .where = tensor,
                 .expected = fmt::format("{} x {}", w.rows(), w.cols()),
                 .got = fmt::format("{} x {}", wanted.rows, wanted.cols),
                 .remedy = "give the model that the adapter was trained on"});
  parallel_for(w.rows(), [&](int64_t r) {
    const std::span<float> row(w.row(r), static_cast<size_t>(w.cols()));
    add_product(m, r, row);
    if (m.magnitude) rescale(row, (*m.magnitude)[static_cast<size_t>(r)]);
  });
}

}  // namespace pare
