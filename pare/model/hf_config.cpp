#include "pare/model/hf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "pare/base/error.h"
#include "pare/model/rope.h"

namespace pare {
namespace {

// GGUF holds f32: 1e-6 and not 9.99999997475e-07.
double shortest(double x) { return std::stod(fmt::format("{}", static_cast<float>(x))); }

[[noreturn]] void refuse(const std::string& what, const std::string& got) {
  throw Error(
      {.what = what, .where = "config.json", .got = got, .remedy = "convert to gguf, or convert the original model"});
}

// llama3's scaling reaches GGUF only as the factors that follow from it; published models use few settings.
std::optional<Rope> llama3_with(const std::vector<float>& factors, const Rope& known) {
  for (const double factor : {8.0, 32.0, 16.0, 4.0, 2.0})
    for (const int64_t original : {8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16}) {
      Rope r = known;
      r.kind = Rope::Kind::llama3;
      r.factor = factor;
      r.low_freq_factor = 1;
      r.high_freq_factor = 4;
      r.original_context = original;
      if (llama3_factors(r) == factors) return r;
    }
  return std::nullopt;
}

Json rope_scaling(const Config& c) {
  Rope r = c.rope;
  if (!r.frequency_factors.empty()) {
    const auto found = llama3_with(r.frequency_factors, r);
    if (!found)
      refuse("the rope factors of this file follow no scaling that config.json can name", "rope_freqs.weight");
    r = *found;
  }
  switch (r.kind) {
    case Rope::Kind::plain:
      return nullptr;
    case Rope::Kind::linear:
      return {{"rope_type", "linear"}, {"factor", shortest(r.factor)}};
    case Rope::Kind::dynamic:
      return {{"rope_type", "dynamic"}, {"factor", shortest(r.factor)}};
    case Rope::Kind::llama3:
      return {{"rope_type", "llama3"},
              {"factor", r.factor},
              {"low_freq_factor", r.low_freq_factor},
              {"high_freq_factor", r.high_freq_factor},
              {"original_max_position_embeddings", r.original_context}};
    case Rope::Kind::yarn: {
      Json out = {{"rope_type", "yarn"},
                  {"factor", shortest(r.factor)},
                  {"original_max_position_embeddings", r.original_context},
                  {"beta_fast", shortest(r.beta_fast)},
                  {"beta_slow", shortest(r.beta_slow)}};
      if (r.attention_factor > 0) out["attention_factor"] = shortest(r.attention_factor);
      return out;
    }
    default:
      refuse("this rope scaling cannot be spelt", fmt::format("kind {}", static_cast<int>(r.kind)));
  }
}

void add_llama_keys(const Config& c, Json& out) {
  out["hidden_size"] = c.hidden;
  out["intermediate_size"] = c.ffn;
  out["num_hidden_layers"] = c.layers;
  out["num_attention_heads"] = c.heads;
  out["num_key_value_heads"] = c.kv_heads;
  out["head_dim"] = c.head_dim;
  out["max_position_embeddings"] = c.context;
  out["rms_norm_eps"] = shortest(c.norm_eps);
  out["hidden_act"] = "silu";
  out["rope_theta"] = shortest(c.rope.theta);
  if (const Json scaling = rope_scaling(c); !scaling.is_null()) out["rope_scaling"] = scaling;
  out["attention_bias"] = c.attention_bias;
  out["mlp_bias"] = c.mlp_bias;
}
void add_gpt2_keys(const Config& c, Json& out) {
  out["n_embd"] = c.hidden;
  out["n_inner"] = c.ffn;
  out["n_layer"] = c.layers;
  out["n_head"] = c.heads;
  out["n_positions"] = out["n_ctx"] = c.context;
  out["layer_norm_epsilon"] = shortest(c.norm_eps);
  out["activation_function"] = "gelu_new";
}

// Which keys a family's config.json has.
struct Spelling {
  std::string_view arch;
  void (*add)(const Config& c, Json& out);
};
constexpr Spelling kSpellings[] = {{"llama", add_llama_keys},
                                   {"mistral", add_llama_keys},
                                   {"qwen2", add_llama_keys},
                                   {"qwen3", add_llama_keys},
                                   {"gpt2", add_gpt2_keys}};

}  // namespace

Json hf_config(const Config& c, const Arch& arch, const std::string& dtype) {
  const auto spelling = std::find_if(std::begin(kSpellings), std::end(kSpellings),
                                     [&](const Spelling& s) { return s.arch == arch.name; });
  if (spelling == std::end(kSpellings))
    refuse("the config.json of this architecture is not written from a GGUF file", std::string(arch.name));
  Json out = {
      {"architectures", {c.hf_class}}, {"model_type", arch.name}, {"torch_dtype", dtype}, {"vocab_size", c.vocab}};
  spelling->add(c, out);
  out["tie_word_embeddings"] = c.tied_head;
  if (c.bos) out["bos_token_id"] = *c.bos;
  if (c.eos_ids.size() == 1) out["eos_token_id"] = c.eos_ids.front();
  if (c.eos_ids.size() > 1) out["eos_token_id"] = c.eos_ids;
  return out;
}

}  // namespace pare
