#include "pare/model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <initializer_list>
#include <limits>

#include "pare/base/error.h"
#include "pare/model/arch.h"
#include "pare/model/config_gguf.h"
#include "pare/model/config_keys.h"
#include "pare/model/rope.h"

namespace pare {
namespace {

constexpr int64_t kMaxLayers = 10'000, kMaxWidth = int64_t{1} << 24, kMaxVocab = int64_t{1} << 28,
                  kMaxContext = std::numeric_limits<int32_t>::max();

const Arch& arch_of(const ConfigKeys& keys, Config& c) {
  std::string asked;
  if (const Json* classes = keys.find("architectures"); classes && classes->is_array() && !classes->empty()) {
    if (!classes->front().is_string()) keys.refuse("architectures", "a list of names", *classes);
    c.hf_class = asked = classes->front().get<std::string>();
    if (const Arch* arch = find_hf_class(asked)) return *arch;
  } else if (const auto type = keys.text({"model_type"})) {
    asked = *type;
    for (const Arch& arch : all_archs())
      if (arch.name == *type) {
        c.hf_class = arch.hf_classes.front();
        return arch;
      }
  }
  std::vector<std::string_view> known;
  for (const Arch& arch : all_archs()) known.push_back(arch.hf_classes.front());
  throw Error({.what = "unknown architecture",
               .where = keys.where(),
               .expected = fmt::format("one of {}", fmt::join(known, ", ")),
               .got = asked.empty() ? "neither \"architectures\" nor \"model_type\"" : asked});
}

void read_sizes(const ConfigKeys& keys, Config& c) {
  c.layers = keys.need_integer({"num_hidden_layers", "n_layer", "n_layers", "num_layers"});
  c.hidden = keys.need_integer({"hidden_size", "n_embd", "d_model", "n_embed"});
  c.heads = keys.need_integer({"num_attention_heads", "n_head", "n_heads", "num_heads"});
  c.kv_heads = keys.integer({"num_key_value_heads"}).value_or(c.heads);
  c.vocab = keys.need_integer({"vocab_size"});
  const ConfigKeys::Names context = {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"};
  c.context = c.context > 0 ? keys.integer(context).value_or(c.context) : keys.need_integer(context);
  c.embedding = keys.integer({"word_embed_proj_dim"}).value_or(c.hidden);
  const auto ffn = keys.integer({"intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"});
  if (!ffn && c.gated && c.ffn == 0) keys.need_integer({"intermediate_size"});
  if (ffn || c.ffn == 0)
    c.ffn = ffn.value_or(c.hidden > 0 && c.hidden <= kMaxWidth ? 4 * c.hidden : 0);  // GPT-2's rule
  if (const auto head_dim = keys.integer({"head_dim"}))
    c.head_dim = *head_dim;
  else if (c.head_dim == 0 && c.heads > 0)
    c.head_dim = c.hidden % c.heads == 0 ? c.hidden / c.heads : 0;  // 0 is refused below
}

Activation activation_of(const ConfigKeys& keys, const std::string& name) {
  static constexpr struct {
    std::string_view name;
    Activation value;
  } kNames[] = {{"silu", Activation::silu},
                {"swish", Activation::silu},
                {"gelu", Activation::gelu},
                {"gelu_new", Activation::gelu_tanh},
                {"gelu_pytorch_tanh", Activation::gelu_tanh},
                {"gelu_fast", Activation::gelu_tanh},
                {"gelu_python", Activation::gelu},
                {"relu", Activation::relu},
                {"relu2", Activation::relu_squared},
                {"xielu", Activation::xielu}};
  std::vector<std::string_view> known;
  for (const auto& entry : kNames) {
    if (entry.name == name) return entry.value;
    known.push_back(entry.name);
  }
  keys.refuse("hidden_act", fmt::format("one of {}", fmt::join(known, ", ")), Json(name));
}

void read_sliding(const ConfigKeys& keys, const Arch& arch, Config& c) {
  if (arch.sliding == SlidingKeys::none) return;
  if (keys.contains("sliding_window")) c.sliding_window = keys.integer({"sliding_window"}).value_or(0);
  if (arch.sliding == SlidingKeys::all || c.layers < 1 || c.layers > kMaxLayers) return;
  if (arch.sliding == SlidingKeys::switched && !keys.boolean({"use_sliding_window"}).value_or(false))
    c.sliding_window = 0;
  if (c.sliding_window == 0) return;
  c.sliding_layers.resize(static_cast<size_t>(c.layers));
  if (const Json* types = keys.find("layer_types")) {
    if (!types->is_array() || types->size() != c.sliding_layers.size())
      keys.refuse("layer_types", "one entry per layer", *types);
    for (size_t i = 0; i < types->size(); ++i) c.sliding_layers[i] = (*types)[i] == "sliding_attention";
  } else if (arch.sliding == SlidingKeys::pattern) {
    const int64_t every =
        keys.integer({"sliding_window_pattern", "_sliding_window_pattern"}).value_or(arch.sliding_pattern);
    if (every < 1) keys.refuse("sliding_window_pattern", "at least 1", Json(every));
    for (int64_t i = 0; i < c.layers; ++i) c.sliding_layers[static_cast<size_t>(i)] = (i + 1) % every != 0;
  } else {
    const int64_t first = keys.integer({"max_window_layers"}).value_or(28);
    for (int64_t i = std::max<int64_t>(0, first); i < c.layers; ++i) c.sliding_layers[static_cast<size_t>(i)] = true;
  }
}

Rope::Kind rope_kind(const ConfigKeys& scaling) {
  const std::string name = scaling.text({"rope_type", "type"}).value_or("default");
  static constexpr struct {
    std::string_view name;
    Rope::Kind value;
  } kNames[] = {{"default", Rope::Kind::plain}, {"linear", Rope::Kind::linear}, {"dynamic", Rope::Kind::dynamic},
                {"llama3", Rope::Kind::llama3}, {"yarn", Rope::Kind::yarn},     {"longrope", Rope::Kind::longrope},
                {"su", Rope::Kind::longrope}};
  for (const auto& entry : kNames)
    if (entry.name == name) return entry.value;
  scaling.refuse("rope_type", "default, linear, dynamic, llama3, yarn or longrope", Json(name));
}

std::vector<float> factors_of(const ConfigKeys& scaling, const char* key) {
  const Json* list = scaling.find(key);
  if (!list || !list->is_array()) scaling.refuse(key, "a list of numbers", list ? *list : Json());
  std::vector<float> out;
  for (const Json& x : *list) {
    if (!x.is_number() || !(x.get<double>() > 0)) scaling.refuse(key, "numbers above 0", *list);
    out.push_back(x.get<float>());
  }
  return out;
}

// How far the context was stretched, for the kinds that can derive it.
std::optional<double> derived_factor(const Rope& r, int64_t context) {
  const bool derives = r.kind == Rope::Kind::yarn || r.kind == Rope::Kind::longrope;
  if (!derives || r.original_context <= 0) return std::nullopt;
  return static_cast<double>(context) / static_cast<double>(r.original_context);
}

void read_scaling(const ConfigKeys& keys, const ConfigKeys& scaling, int64_t context, Rope& r) {
  r.kind = rope_kind(scaling);
  r.theta = scaling.number({"rope_theta"}).value_or(r.theta);
  r.original_context = scaling.integer({"original_max_position_embeddings"})
                           .value_or(keys.integer({"original_max_position_embeddings"}).value_or(context));
  const auto factor = scaling.number({"factor"});
  const auto derived = derived_factor(r, context);
  if (!factor && r.kind != Rope::Kind::plain && !derived) scaling.refuse("factor", "a number", Json());
  r.factor = factor.value_or(derived.value_or(1));
  r.low_freq_factor = scaling.number({"low_freq_factor"}).value_or(r.low_freq_factor);
  r.high_freq_factor = scaling.number({"high_freq_factor"}).value_or(r.high_freq_factor);
  r.beta_fast = scaling.number({"beta_fast"}).value_or(r.beta_fast);
  r.beta_slow = scaling.number({"beta_slow"}).value_or(r.beta_slow);
  r.attention_factor = scaling.number({"attention_factor"}).value_or(0);
  r.truncated = scaling.boolean({"truncate"}).value_or(true);
  r.mscale = scaling.number({"mscale"});
  r.mscale_all_dim = scaling.number({"mscale_all_dim"});
  if (r.kind != Rope::Kind::longrope) return;
  r.short_factors = factors_of(scaling, "short_factor");
  r.long_factors = factors_of(scaling, "long_factor");
}

// transformers 4: rope_theta and the rotated part stand outside, rope_scaling holds the rest; 5: everything is in
// rope_parameters, once, or for each kind of layer.
void read_rope(const ConfigKeys& keys, const Arch& arch, Config& c) {
  Rope& r = c.rope;
  r.theta = keys.number({"rope_theta", "rotary_emb_base"}).value_or(r.theta);
  double part = keys.number({"partial_rotary_factor", "rotary_pct", "rope_pct"}).value_or(arch.rotated_part);
  if (const auto local = keys.number({"rope_local_base_freq"})) {
    c.sliding_rope = r;
    c.sliding_rope->theta = *local;
  }
  auto scaling = keys.object("rope_parameters");
  if (!scaling) scaling = keys.object("rope_scaling");
  if (scaling && scaling->contains("full_attention")) {
    if (const auto sliding = scaling->object("sliding_attention")) {
      c.sliding_rope = r;
      read_scaling(keys, *sliding, c.context, *c.sliding_rope);
    }
    scaling = scaling->object("full_attention");
  }
  if (scaling) {
    read_scaling(keys, *scaling, c.context, r);
    part = scaling->number({"partial_rotary_factor"}).value_or(part);
  }
  if (!(part > 0 && part <= 1)) keys.refuse("partial_rotary_factor", "above 0, at most 1", Json(part));
  const auto absolute = keys.integer({"rotary_dim"});
  const int64_t dims = absolute     ? *absolute
                       : r.dims > 0 ? r.dims
                                    : static_cast<int64_t>(static_cast<double>(c.head_dim) * part);
  r.dims = dims;
  if (c.sliding_rope) c.sliding_rope->dims = dims;
}

// What would change the arithmetic and is not built.
void refuse_unsupported(const ConfigKeys& keys) {
  struct Flag {
    const char* key;
    bool wanted;
  };
  for (const Flag flag : {Flag{"scale_attn_by_inverse_layer_idx", false}, Flag{"scale_attn_weights", true},
                          Flag{"add_cross_attention", false}, Flag{"layer_norm_elementwise_affine", true}})
    if (keys.boolean({flag.key}).value_or(flag.wanted) != flag.wanted)
      keys.refuse(flag.key, flag.wanted ? "true (the other is not supported)" : "false (the other is not supported)",
                  Json(!flag.wanted));
}

int32_t token_id(const ConfigKeys& keys, const char* key, const Json& value) {
  if (!value.is_number_integer() || value.get<int64_t>() < -1 || value.get<int64_t>() > kMaxVocab)
    keys.refuse(key, "a token id", value);
  return value.get<int32_t>();
}

void read_tokens(const ConfigKeys& keys, Config& c) {
  if (const Json* bos = keys.find("bos_token_id")) {
    const int32_t id = token_id(keys, "bos_token_id", *bos);
    if (id >= 0) c.bos = id;
  }
  const Json* eos = keys.find("eos_token_id");
  if (!eos) return;
  for (const Json& one : eos->is_array() ? *eos : Json::array({*eos}))
    if (const int32_t id = token_id(keys, "eos_token_id", one); id >= 0) c.eos_ids.push_back(id);
  if (!c.eos_ids.empty()) c.eos = c.eos_ids.front();
}

Config from_json(const Checkpoint& checkpoint) {
  const std::string where = (checkpoint.path() / "config.json").string();
  if (!checkpoint.config().is_object())
    throw Error({.what = "config.json is not an object", .where = where, .remedy = "fetch the model again"});
  const ConfigKeys keys(checkpoint.config(), where);
  Config c;
  const Arch& arch = arch_of(keys, c);
  const std::string hf_class = c.hf_class;
  c = arch.defaults;
  c.hf_class = hf_class;
  c.architecture = arch.name;

  read_sizes(keys, c);
  c.norm_eps = keys.number({"rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"})
                   .value_or(c.norm_eps);
  if (const auto act = keys.text({"hidden_activation", "hidden_act", "activation_function", "activation"}))
    c.activation = activation_of(keys, *act);
  if (!keys.boolean({"do_layer_norm_before"}).value_or(true)) c.norm_place = NormPlace::sum;
  c.final_norm = c.norm_place != NormPlace::sum && !keys.boolean({"_remove_final_layer_norm"}).value_or(false);
  c.attention_bias =
      keys.boolean({"attention_bias", "enable_bias", "use_bias", "bias", "use_qkv_bias"}).value_or(c.attention_bias);
  c.mlp_bias = keys.boolean({"mlp_bias", "enable_bias", "use_bias", "bias"}).value_or(c.mlp_bias);
  c.tied_head = keys.boolean({"tie_word_embeddings"}).value_or(c.tied_head);
  read_sliding(keys, arch, c);
  if (arch.read) arch.read(keys, c);
  if (arch.derive) arch.derive(c);
  if (c.position == PositionKind::rope) read_rope(keys, arch, c);
  if (c.latent && c.head_dim > 0)
    c.attention_scale = latent_score_scale(c.rope) / std::sqrt(static_cast<float>(c.head_dim));
  refuse_unsupported(keys);
  read_tokens(keys, c);
  c.dtype = keys.text({"dtype", "torch_dtype"}).value_or("");
  return c;
}

// ---- sense

class Sense {
 public:
  explicit Sense(std::string where) : where_(std::move(where)) {}
  void within(const char* what, int64_t value, int64_t lowest, int64_t highest) const {
    if (value < lowest || value > highest) fail(what, fmt::format("{}…{}", lowest, highest), std::to_string(value));
  }
  void divides(const char* what, int64_t whole, int64_t part) const {
    if (part <= 0 || whole % part != 0) fail(what, fmt::format("a divisor of {}", whole), std::to_string(part));
  }
  void holds(bool good, const char* what, const char* expected, double got) const {
    if (!good) fail(what, expected, fmt::format("{}", got));
  }

 private:
  [[noreturn]] void fail(const char* what, std::string expected, std::string got) const {
    throw Error({.what = fmt::format("the configuration makes no sense: {}", what),
                 .where = where_,
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .remedy = "the file is damaged or not of this model; fetch it again"});
  }
  std::string where_;
};

void check_sense(const Rope& r, int64_t head_dim, const Sense& sense) {
  const bool dynamic = r.kind == Rope::Kind::dynamic;
  sense.within("rotated dimensions", r.dims, dynamic ? 4 : 2, head_dim);
  sense.holds(r.dims % 2 == 0, "rotated dimensions", "an even number", static_cast<double>(r.dims));
  sense.holds(std::isfinite(r.theta) && r.theta > 1, "rope theta", "above 1", r.theta);
  sense.holds(std::isfinite(r.factor) && r.factor >= 1e-3 && r.factor <= 1e6, "rope factor", "0.001 to 1000000",
              r.factor);
  if (r.kind != Rope::Kind::plain && r.kind != Rope::Kind::linear)
    sense.within("original context of rope scaling", r.original_context, 1, kMaxContext);
  if (r.kind == Rope::Kind::llama3)
    sense.holds(r.low_freq_factor > 0 && r.high_freq_factor > r.low_freq_factor, "rope high_freq_factor",
                "above low_freq_factor, both above 0", r.high_freq_factor);
  if (r.kind == Rope::Kind::yarn)
    sense.holds(r.beta_slow > 0 && r.beta_fast >= r.beta_slow, "rope beta_fast", "at least beta_slow, both above 0",
                r.beta_fast);
  if (!r.frequency_factors.empty())
    sense.within("number of rope frequency factors", static_cast<int64_t>(r.frequency_factors.size()), r.dims / 2,
                 r.dims / 2);
  if (r.kind == Rope::Kind::longrope)
    for (const auto* factors : {&r.short_factors, &r.long_factors})
      sense.within("number of rope factors", std::ssize(*factors), r.dims / 2, r.dims / 2);
}

void check_sense(const Config& c, const std::string& where) {
  const Sense sense(where);
  sense.within("number of layers", c.layers, 1, kMaxLayers);
  sense.within("hidden size", c.hidden, 1, kMaxWidth);
  sense.within("embedding size", c.embedding, 1, kMaxWidth);
  sense.within("feed-forward size", c.ffn, 1, kMaxWidth);
  sense.within("attention heads", c.heads, 1, kMaxWidth);
  sense.within("key-value heads", c.kv_heads, 1, c.heads);
  if (c.head_dim == 0) sense.divides("attention heads", c.hidden, c.heads);
  sense.within("head size", c.head_dim, 1, kMaxWidth / c.heads);
  sense.divides("key-value heads", c.heads, c.kv_heads);
  if (c.moe) {
    sense.within("experts' feed-forward size", c.moe->ffn, 1, kMaxWidth);
    sense.within("shared feed-forward size", c.moe->shared_ffn, 0, kMaxWidth);
  }
  sense.within("vocabulary size", c.vocab, 1, kMaxVocab);
  sense.within("context length", c.context, 1, kMaxContext);
  sense.within("sliding window", c.sliding_window, 0, kMaxContext);
  sense.holds(c.norm_eps >= 0 && c.norm_eps < 1, "epsilon of the norms", "0 up to 1", c.norm_eps);
  if (c.position != PositionKind::rope) return;
  check_sense(c.rope, c.head_dim, sense);
  if (c.sliding_rope) check_sense(*c.sliding_rope, c.head_dim, sense);
}

}  // namespace

Config read_config(const Checkpoint& checkpoint) {
  const bool gguf = checkpoint.format() == Format::gguf;
  Config config = gguf ? config_from_gguf(checkpoint) : from_json(checkpoint);
  check_sense(config, (gguf ? checkpoint.path() : checkpoint.path() / "config.json").string());
  check_shapes(config, find_arch(config.architecture), checkpoint);
  return config;
}

}  // namespace pare
