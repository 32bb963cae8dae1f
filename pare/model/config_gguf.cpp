#include "pare/model/config_gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "pare/base/error.h"
#include "pare/model/arch.h"

namespace pare {
namespace {

// Keys of one architecture: "{arch}.block_count" is asked for as "block_count".
class GgufKeys {
 public:
  GgufKeys(const Checkpoint& checkpoint, std::string_view arch)
      : metadata_(checkpoint.metadata()), where_(checkpoint.path().string()), arch_(arch) {}
  std::string name(std::string_view key) const { return fmt::format("{}.{}", arch_, key); }
  std::optional<int64_t> integer(std::string_view key) const { return metadata_.integer(name(key)); }
  std::optional<double> number(std::string_view key) const { return metadata_.number(name(key)); }
  std::optional<std::string> text(std::string_view key) const { return metadata_.text(name(key)); }
  std::optional<bool> boolean(std::string_view key) const { return metadata_.boolean(name(key)); }
  int64_t need_integer(std::string_view key) const {
    if (const auto value = integer(key)) return *value;
    throw Error({.what = fmt::format("the GGUF file lacks the key {}", name(key)),
                 .where = where_,
                 .remedy = "convert the model again"});
  }

 private:
  const Metadata& metadata_;
  std::string where_, arch_;
};

const Arch& arch_of(const Checkpoint& checkpoint) {
  const auto name = checkpoint.metadata().text("general.architecture");
  if (name)
    if (const Arch* arch = find_gguf_architecture(*name)) return *arch;
  std::vector<std::string_view> known;
  for (const Arch& arch : all_archs())
    if (!arch.gguf.empty() && std::find(known.begin(), known.end(), arch.gguf) == known.end())
      known.push_back(arch.gguf);
  throw Error({.what = "unknown architecture",
               .where = checkpoint.path().string(),
               .expected = fmt::format("general.architecture being one of {}", fmt::join(known, ", ")),
               .got = name.value_or("no general.architecture")});
}

std::vector<float> rope_factors(const Checkpoint& checkpoint, const char* name) {
  if (!checkpoint.has(name)) return {};
  const Weight weight = checkpoint.load(name);
  const auto* floats = std::get_if<FloatTensor>(&weight);
  if (!floats || floats->shape.size() != 1)
    throw Error({.what = "the rope factors are not a vector of floats", .where = name});
  const Matrix m = floats->to_matrix();
  for (const float f : m.values())
    if (!std::isfinite(f) || f <= 0)
      throw Error({.what = "a rope factor is not a positive number", .where = name, .got = fmt::format("{}", f)});
  return {m.values().begin(), m.values().end()};
}

void read_rope(const Checkpoint& checkpoint, const GgufKeys& keys, Config& c) {
  Rope& r = c.rope;
  r.theta = keys.number("rope.freq_base").value_or(r.theta);
  r.dims = keys.integer("rope.dimension_count").value_or(c.head_dim);
  const std::string type =
      keys.text("rope.scaling.type").value_or(keys.number("rope.scale_linear") ? "linear" : "none");
  r.factor = keys.number("rope.scaling.factor").value_or(keys.number("rope.scale_linear").value_or(1));
  r.original_context = keys.integer("rope.scaling.original_context_length").value_or(c.context);
  if (type == "linear") {
    r.kind = r.factor == 1 ? Rope::Kind::plain : Rope::Kind::linear;
  } else if (type == "yarn") {
    r.kind = Rope::Kind::yarn;
    r.beta_fast = keys.number("rope.scaling.yarn_beta_fast").value_or(r.beta_fast);
    r.beta_slow = keys.number("rope.scaling.yarn_beta_slow").value_or(r.beta_slow);
    if (const auto factor = keys.number("rope.scaling.attn_factor"); factor && *factor != 0 && r.factor > 0)
      r.attention_factor = *factor * (1 + 0.1 * std::log(std::max(r.factor, 1.0)));
  } else if (type == "none") {
    r.factor = 1;
  } else {
    throw Error({.what = "unsupported rope scaling",
                 .where = keys.name("rope.scaling.type"),
                 .expected = "none, linear or yarn",
                 .got = type});
  }
  r.frequency_factors = rope_factors(checkpoint, "rope_freqs.weight");
  r.long_factors = rope_factors(checkpoint, "rope_factors_long.weight");
  r.short_factors = rope_factors(checkpoint, "rope_factors_short.weight");
  if (r.long_factors.empty() && r.short_factors.empty()) return;
  r.kind = Rope::Kind::longrope;
  r.attention_factor = keys.number("rope.scaling.attn_factor").value_or(1);
}

void read_factors(const GgufKeys& keys, const Arch& arch, Config& c) {
  const auto read = [&](std::string_view key, float& into) {
    if (const auto x = keys.number(key); x && *x != 0) into = static_cast<float>(*x);
  };
  read("attention.scale", c.attention_scale);
  read("embedding_scale", c.embedding_scale);
  read("residual_scale", c.residual_scale);
  read("logit_scale", c.logit_scale);
  if (arch.gguf_divides_logits) c.logit_scale = 1 / c.logit_scale;
  read("attn_logit_softcapping", c.attention_cap);
  read("final_logit_softcapping", c.logit_cap);
  read("attention.clamp_kqv", c.qkv_clip);
}

void read_sliding(const GgufKeys& keys, const Arch& arch, Config& c) {
  if (arch.sliding == SlidingKeys::all) c.sliding_window = keys.integer("attention.sliding_window").value_or(0);
  if (arch.sliding != SlidingKeys::pattern || c.layers < 1 || c.layers > 10'000) return;
  c.sliding_window = keys.integer("attention.sliding_window").value_or(0);
  const int64_t every = keys.integer("attention.sliding_window_pattern").value_or(arch.sliding_pattern);
  for (int64_t i = 0; i < c.layers; ++i) c.sliding_layers.push_back(every > 0 && (i + 1) % every != 0);
  if (const auto theta = keys.number("rope.freq_base_swa")) {
    c.sliding_rope = c.rope;
    c.sliding_rope->theta = *theta;
  }
}

bool has_any_bias(const Checkpoint& checkpoint, const Arch& arch, Bias kind) {
  const TensorNames names(arch, checkpoint);
  return std::any_of(arch.tensors.begin(), arch.tensors.end(),
                     [&](const TensorName& t) { return t.bias == kind && checkpoint.has(names.bias(t, 0)); });
}

std::optional<int32_t> token_id(const Checkpoint& checkpoint, const char* key) {
  const auto id = checkpoint.metadata().integer(key);
  if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max()) return std::nullopt;
  return static_cast<int32_t>(*id);
}

}  // namespace

Config config_from_gguf(const Checkpoint& checkpoint) {
  const Arch& arch = arch_of(checkpoint);
  const GgufKeys keys(checkpoint, arch.gguf);
  const TensorNames names(arch, checkpoint);
  Config c = arch.defaults;
  c.architecture = arch.name;
  c.hf_class = arch.hf_classes.front();
  c.sliding_window = 0;  // llama.cpp attends to everything where no key says otherwise

  c.layers = keys.need_integer("block_count");
  c.hidden = c.embedding = keys.need_integer("embedding_length");
  c.ffn = keys.need_integer("feed_forward_length");
  c.heads = keys.need_integer("attention.head_count");
  c.kv_heads = keys.integer("attention.head_count_kv").value_or(c.heads);
  c.context = keys.need_integer("context_length");
  const auto head_dim = keys.integer("attention.key_length");
  c.head_dim = head_dim.value_or(c.heads > 0 && c.hidden % c.heads == 0 ? c.hidden / c.heads : 0);
  if (const auto value = keys.integer("attention.value_length"); value && *value != c.head_dim)
    throw Error({.what = "keys and values of different sizes are not supported",
                 .where = keys.name("attention.value_length"),
                 .expected = std::to_string(c.head_dim),
                 .got = std::to_string(*value)});
  const auto embedding = checkpoint.shape_of(names.weight(*find_tensor(arch, Role::token_embedding)));
  c.vocab = keys.integer("vocab_size").value_or(embedding ? embedding->rows : 0);
  const bool rms = c.norm == NormKind::rms;
  c.norm_eps =
      keys.number(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon").value_or(c.norm_eps);
  c.attention_bias = has_any_bias(checkpoint, arch, Bias::attention);
  c.mlp_bias = has_any_bias(checkpoint, arch, Bias::mlp);
  c.tied_head = !checkpoint.has(names.weight(*find_tensor(arch, Role::head)));
  if (c.position == PositionKind::rope) read_rope(checkpoint, keys, c);
  const TensorName* q = find_tensor(arch, Role::q);
  if (q && q->gguf_rows == RowOrder::interleaved_halves) c.rope.interleaved = true;
  read_factors(keys, arch, c);
  read_sliding(keys, arch, c);
  if (const auto parallel = keys.boolean("use_parallel_residual")) c.parallel = c.shared_norm = *parallel;
  if (arch.derive) arch.derive(c);

  c.bos = token_id(checkpoint, "tokenizer.ggml.bos_token_id");
  c.eos = token_id(checkpoint, "tokenizer.ggml.eos_token_id");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = token_id(checkpoint, key);
        id && std::find(c.eos_ids.begin(), c.eos_ids.end(), *id) == c.eos_ids.end())
      c.eos_ids.push_back(*id);
  return c;
}

}  // namespace pare
