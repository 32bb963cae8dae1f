#include "pare/model/gguf_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <span>
#include <stdexcept>

#include "pare/base/error.h"
#include "pare/model/rope.h"

namespace pare {
namespace {

// Buffers that old checkpoints store although they follow from the configuration.
bool is_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
}

GgufTensorPlan plan_of(const Config& config, const TensorNames::Place& place, const std::string& name) {
  const TensorName& t = *place.tensor;
  std::string gguf(t.gguf);
  if (place.layer >= 0) gguf.replace(gguf.find("{}"), 2, std::to_string(place.layer));
  const Shape shape = expected_shape(config, t.role);
  const bool vector = is_norm(t.role) || !place.weight;
  GgufTensorPlan plan;
  plan.hf_name = name;
  plan.gguf_name = gguf + (place.weight ? ".weight" : ".bias");
  plan.shape = {shape.rows, shape.cols};
  if (vector) plan.shape = {is_norm(t.role) ? shape.cols : shape.rows};
  if (is_norm(t.role) && shape.rows > 1) plan.shape = {shape.rows, shape.cols};  // a norm of each head
  plan.role = t.role;
  plan.layer = place.layer;
  plan.row_order = t.gguf_rows;
  plan.transposed = t.transposed && place.weight;
  if (is_norm(t.role) && place.weight) plan.added = config.norm_offset;
  plan.kept_f32 = vector || t.role == Role::position_embedding;
  return plan;
}

void write_rope(const Config& c, const std::string& prefix, Metadata& out) {
  const Rope& r = c.rope;
  if (r.kind == Rope::Kind::linear || r.kind == Rope::Kind::yarn) {
    out.set(prefix + "rope.scaling.type", std::string(r.kind == Rope::Kind::linear ? "linear" : "yarn"));
    out.set(prefix + "rope.scaling.factor", static_cast<float>(r.factor));
  }
  if (r.kind == Rope::Kind::yarn) {
    out.set(prefix + "rope.scaling.original_context_length", static_cast<uint32_t>(r.original_context));
    out.set(prefix + "rope.scaling.yarn_beta_fast", static_cast<float>(r.beta_fast));
    out.set(prefix + "rope.scaling.yarn_beta_slow", static_cast<float>(r.beta_slow));
    if (r.attention_factor > 0)  // what llama.cpp multiplies its own 1 + 0.1 ln(factor) by
      out.set(prefix + "rope.scaling.attn_factor",
              static_cast<float>(r.attention_factor / (1 + 0.1 * std::log(std::max(r.factor, 1.0)))));
  }
  out.set(prefix + "rope.freq_base", static_cast<float>(r.theta));
}

// "45K", "1.6M": two digits at least, rounded as printf rounds.
std::string size_label(int64_t parameters) {
  static constexpr struct {
    double unit;
    char suffix;
  } kUnits[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}};
  const auto count = static_cast<double>(parameters);
  const auto& unit =
      *std::find_if(std::begin(kUnits), std::end(kUnits) - 1, [&](const auto& u) { return count > u.unit; });
  const double scaled = count / unit.unit;
  return fmt::format("{:.{}f}{}", scaled, std::nearbyint(scaled) < 10 ? 1 : 0, unit.suffix);
}

void require_gguf(const Arch& arch) {
  if (!arch.gguf.empty()) return;
  throw Error({.what = fmt::format("Pare writes no GGUF files of {} models (yet)", arch.name),
               .where = std::string(arch.hf_classes.front()),
               .remedy = "write a GPTQ checkpoint instead"});
}

}  // namespace

std::vector<GgufTensorPlan> gguf_tensors(const Config& config, const Arch& arch, const Checkpoint& checkpoint) {
  require_gguf(arch);
  const TensorNames names(arch, checkpoint);
  const bool gguf = checkpoint.format() == Format::gguf;
  std::vector<GgufTensorPlan> out;
  for (const std::string& stored : checkpoint.weights()) {
    const std::string name = sought_name(config, arch, checkpoint, stored);
    const auto place = names.place(name);
    if (gguf && name.starts_with("rope_f")) continue;  // one of the extra tensors
    if (!gguf && is_buffer(name)) continue;
    if (!place)
      throw Error({.what = fmt::format("a tensor that {} models do not have", arch.name),
                   .where = fmt::format("{}: {}", checkpoint.path().string(), name),
                   .remedy = "the checkpoint is of another architecture, or holds more than a language model"});
    if (!has_tensor(config, *place->tensor)) continue;
    if (place->part >= 0)
      throw Error({.what = "Pare writes no GGUF files of models with norms stored head by head (yet)", .where = name});
    if (!place->weight && !has_bias(config, *place->tensor)) continue;
    out.push_back(plan_of(config, *place, name));
    if (gguf) out.back().row_order = RowOrder::as_is, out.back().added = 0;
    if (gguf || checkpoint.grid_of_weight(name)) out.back().transposed = false;
  }
  return out;
}

std::vector<std::pair<std::string, std::vector<float>>> gguf_extra_tensors(const Config& config) {
  if (config.position != PositionKind::rope) return {};
  if (config.rope.kind == Rope::Kind::longrope)
    return {{"rope_factors_long.weight", config.rope.long_factors},
            {"rope_factors_short.weight", config.rope.short_factors}};
  if (config.rope.kind == Rope::Kind::llama3) return {{"rope_freqs.weight", llama3_factors(config.rope)}};
  if (!config.rope.frequency_factors.empty()) return {{"rope_freqs.weight", config.rope.frequency_factors}};
  return {};
}

std::vector<int64_t> gguf_row_permutation(const Config& config, const TensorName& tensor, int64_t rows, bool back) {
  if (tensor.gguf_rows == RowOrder::as_is) return {};
  const int64_t half = config.head_dim / 2;
  std::vector<int64_t> order(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t head = r / config.head_dim * config.head_dim, in_head = r % config.head_dim;
    const int64_t source = head + in_head % 2 * half + in_head / 2;
    if (back)
      order[static_cast<size_t>(source)] = r;
    else
      order[static_cast<size_t>(r)] = source;
  }
  return order;
}

std::string gguf_model_name(const std::filesystem::path& path) {
  std::filesystem::path folder = path.has_filename() ? path : path.parent_path();
  if (folder == "." || folder == ".." || folder.empty()) folder = std::filesystem::absolute(folder).lexically_normal();
  std::string text = folder.filename().empty() ? folder.parent_path().filename().string() : folder.filename().string();
  std::replace(text.begin(), text.end(), '-', ' ');
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    std::string word = text.substr(at, end - at);
    at = end + 1;
    if (word.empty()) continue;
    const auto is = [](int (*kind)(int)) {
      return [kind](char c) { return kind(static_cast<unsigned char>(c)) != 0; };
    };
    const bool lower = std::any_of(word.begin(), word.end(), is(std::islower)) &&
                       std::none_of(word.begin(), word.end(), is(std::isupper));
    const bool version = std::isdigit(static_cast<unsigned char>(word[0])) ||
                         (word[0] == 'v' && word.size() > 1 && std::isdigit(static_cast<unsigned char>(word[1])));
    bool after_letter = false;  // each run of letters starts with a capital
    for (char& c : word) {
      const bool letter = std::isalpha(static_cast<unsigned char>(c)) != 0;
      if (lower && !version && letter && !after_letter)
        c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      after_letter = letter;
    }
    out += (out.empty() ? "" : " ") + word;
  }
  return out;
}

namespace {

constexpr std::string_view kGgufKeys[] = {"block_count",
                                          "context_length",
                                          "embedding_length",
                                          "feed_forward_length",
                                          "attention.head_count",
                                          "attention.head_count_kv",
                                          "rope.freq_base",
                                          "norm_epsilon",
                                          "head_size",
                                          "file_type"};
constexpr std::string_view kSizeKeys[] = {"vocab_size", "rope.dimension_count"};

// What may be asked for when writing the keys of one architecture.
class KeyWriter {
 public:
  KeyWriter(const Config& config, const Arch& arch, const Json& hf_config, Metadata& out)
      : c_(config), arch_(arch), hf_(hf_config), out_(out), prefix_(std::string(arch.gguf) + ".") {}

  // Writes a key of Arch::gguf_keys, unless it does not apply to this model.
  void write(std::string_view key) {
    const bool rope = c_.position == PositionKind::rope;
    if (key == "head_size") return head_size();
    if (key == "rope.freq_base") return rope ? write_rope(c_, prefix_, out_) : void();
    if (key == "attention.head_count_kv" && !rope) return;
    if (key == "plain_freq_base") return number("rope.freq_base", c_.rope.theta);
    if (key == "no_bos") return out_.set("tokenizer.ggml.add_bos_token", false);
    if (key == "use_parallel_residual") return out_.set(prefix_ + std::string(key), c_.parallel);
    if (key == "sliding_window_or_0")
      return out_.set(prefix_ + "attention.sliding_window", static_cast<uint32_t>(c_.sliding_window));
    if (key == "no_rope_scaling") return out_.set(prefix_ + "rope.scaling.type", std::string("none"));
    if (key == "norm_epsilon")
      return number(c_.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
                    c_.norm_eps);
    if (const auto count = count_of(key)) return out_.set(prefix_ + std::string(key), static_cast<uint32_t>(*count));
    if (const auto x = number_of(key)) return number(key, *x);
  }

 private:
  void number(std::string_view key, double x) { out_.set(prefix_ + std::string(key), static_cast<float>(x)); }

  // The converter writes the head size only where config.json names it; readers need it where it is not hidden / heads.
  void head_size() {
    const bool named = hf_.is_object() && hf_.contains("head_dim") && !hf_["head_dim"].is_null();
    if (!named && c_.head_dim * c_.heads == c_.hidden) return;
    out_.set(prefix_ + "attention.key_length", static_cast<uint32_t>(c_.head_dim));
    out_.set(prefix_ + "attention.value_length", static_cast<uint32_t>(c_.head_dim));
  }

  std::optional<int64_t> count_of(std::string_view key) const {
    if (key == "block_count") return c_.layers;
    if (key == "context_length") return c_.context;
    if (key == "embedding_length") return c_.hidden;
    if (key == "feed_forward_length") return c_.ffn;
    if (key == "attention.head_count") return c_.heads;
    if (key == "attention.head_count_kv") return c_.kv_heads;
    if (key == "attention.sliding_window" && c_.sliding_window > 0) return c_.sliding_window;
    if (key == "vocab_size") return c_.vocab;
    if (key == "rope.scaling.original_context_length")
      return c_.rope.original_context > 0 ? c_.rope.original_context : c_.context;
    if (key == "rope.dimension_count") return c_.rope.dims;
    return std::nullopt;
  }

  std::optional<double> number_of(std::string_view key) const {
    const auto unless_zero = [](float x) { return x != 0 ? std::optional<double>(x) : std::nullopt; };
    if (key == "attention.layer_norm_rms_epsilon" || key == "attention.layer_norm_epsilon") return c_.norm_eps;
    if (key == "rope.freq_base_swa") return c_.rope_of_sliding_layers().theta;
    if (key == "rope.scaling.attn_factor") return longrope_scale(c_.rope);
    if (key == "attention.scale") return unless_zero(c_.attention_scale);
    if (key == "embedding_scale") return c_.embedding_scale;
    if (key == "residual_scale") return c_.residual_scale;
    if (key == "logit_scale") return arch_.gguf_divides_logits ? 1.0 / c_.logit_scale : double{c_.logit_scale};
    if (key == "attn_logit_softcapping") return unless_zero(c_.attention_cap);
    if (key == "final_logit_softcapping") return unless_zero(c_.logit_cap);
    if (key == "attention.clamp_kqv") return unless_zero(c_.qkv_clip);
    throw std::logic_error("no such GGUF key: " + std::string(key));
  }

  const Config& c_;
  const Arch& arch_;
  const Json& hf_;
  Metadata& out_;
  std::string prefix_;
};

}  // namespace

Metadata gguf_metadata(const Config& config, const Arch& arch, const Json& hf_config, const std::string& name,
                       int64_t parameters, std::optional<uint32_t> file_type) {
  require_gguf(arch);
  Metadata out;
  out.set("general.architecture", std::string(arch.gguf));
  KeyWriter writer(config, arch, hf_config, out);
  // The converter writes this one when it makes the factors' tensors, which come first.
  if (config.rope.kind == Rope::Kind::longrope) writer.write("rope.scaling.attn_factor");
  out.set("general.type", std::string("model"));
  out.set("general.name", name);
  if (parameters > 0) out.set("general.size_label", size_label(parameters));
  const auto write = [&](std::span<const std::string_view> keys) {
    for (const std::string_view key : keys) {
      if (key != "file_type")
        writer.write(key);
      else if (file_type)
        out.set("general.file_type", *file_type);
    }
  };
  write(arch.gguf_keys.empty() ? std::span<const std::string_view>(kGgufKeys) : arch.gguf_keys);
  if (arch.gguf_sizes) write(kSizeKeys);
  return out;
}

}  // namespace pare
