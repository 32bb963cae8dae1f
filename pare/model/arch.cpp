#include "pare/model/arch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "pare/base/error.h"

namespace pare {
namespace {

constexpr TensorName kLlamaTensors[] = {
    {Role::token_embedding, "model.embed_tokens", "token_embd"},
    {Role::attn_norm, "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {Role::q, "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", RowOrder::interleaved_halves, false,
     Bias::attention},
    {Role::k, "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", RowOrder::interleaved_halves, false,
     Bias::attention},
    {Role::v, "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", RowOrder::as_is, false, Bias::attention},
    {Role::o, "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output", RowOrder::as_is, false, Bias::attention},
    {Role::ffn_norm, "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {Role::gate, "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", RowOrder::as_is, false, Bias::mlp},
    {Role::up, "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up", RowOrder::as_is, false, Bias::mlp},
    {Role::down, "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down", RowOrder::as_is, false, Bias::mlp},
    {Role::final_norm, "model.norm", "output_norm"},
    {Role::head, "lm_head", "output"},
};

constexpr TensorName kQwen2Tensors[] = {
    {Role::token_embedding, "model.embed_tokens", "token_embd"},
    {Role::attn_norm, "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {Role::q, "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", RowOrder::as_is, false, Bias::always},
    {Role::k, "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", RowOrder::as_is, false, Bias::always},
    {Role::v, "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", RowOrder::as_is, false, Bias::always},
    {Role::o, "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
    {Role::ffn_norm, "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {Role::gate, "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
    {Role::up, "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
    {Role::down, "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
    {Role::final_norm, "model.norm", "output_norm"},
    {Role::head, "lm_head", "output"},
};

constexpr TensorName kQwen3Tensors[] = {
    {Role::token_embedding, "model.embed_tokens", "token_embd"},
    {Role::attn_norm, "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {Role::q, "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", RowOrder::as_is, false, Bias::attention},
    {Role::k, "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", RowOrder::as_is, false, Bias::attention},
    {Role::v, "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", RowOrder::as_is, false, Bias::attention},
    {Role::o, "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output", RowOrder::as_is, false, Bias::attention},
    {Role::q_norm, "model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"},
    {Role::k_norm, "model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"},
    {Role::ffn_norm, "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {Role::gate, "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
    {Role::up, "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
    {Role::down, "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
    {Role::final_norm, "model.norm", "output_norm"},
    {Role::head, "lm_head", "output"},
};

// llama.cpp has no OPT: no names for GGUF.
constexpr TensorName kOptTensors[] = {
    {Role::token_embedding, "model.decoder.embed_tokens", ""},
    {Role::position_embedding, "model.decoder.embed_positions", ""},
    {Role::project_in, "model.decoder.project_in", ""},
    {Role::project_out, "model.decoder.project_out", ""},
    {Role::attn_norm, "model.decoder.layers.{}.self_attn_layer_norm", "", RowOrder::as_is, false, Bias::always},
    {Role::q, "model.decoder.layers.{}.self_attn.q_proj", "", RowOrder::as_is, false, Bias::attention},
    {Role::k, "model.decoder.layers.{}.self_attn.k_proj", "", RowOrder::as_is, false, Bias::attention},
    {Role::v, "model.decoder.layers.{}.self_attn.v_proj", "", RowOrder::as_is, false, Bias::attention},
    {Role::o, "model.decoder.layers.{}.self_attn.out_proj", "", RowOrder::as_is, false, Bias::attention},
    {Role::ffn_norm, "model.decoder.layers.{}.final_layer_norm", "", RowOrder::as_is, false, Bias::always},
    {Role::up, "model.decoder.layers.{}.fc1", "", RowOrder::as_is, false, Bias::mlp},
    {Role::down, "model.decoder.layers.{}.fc2", "", RowOrder::as_is, false, Bias::mlp},
    {Role::final_norm, "model.decoder.final_layer_norm", "", RowOrder::as_is, false, Bias::always},
    {Role::head, "lm_head", ""},
};

constexpr TensorName kGpt2Tensors[] = {
    {Role::token_embedding, "transformer.wte", "token_embd"},
    {Role::position_embedding, "transformer.wpe", "position_embd"},
    {Role::attn_norm, "transformer.h.{}.ln_1", "blk.{}.attn_norm", RowOrder::as_is, false, Bias::always},
    {Role::qkv, "transformer.h.{}.attn.c_attn", "blk.{}.attn_qkv", RowOrder::as_is, true, Bias::always},
    {Role::o, "transformer.h.{}.attn.c_proj", "blk.{}.attn_output", RowOrder::as_is, true, Bias::always},
    {Role::ffn_norm, "transformer.h.{}.ln_2", "blk.{}.ffn_norm", RowOrder::as_is, false, Bias::always},
    {Role::up, "transformer.h.{}.mlp.c_fc", "blk.{}.ffn_up", RowOrder::as_is, true, Bias::always},
    {Role::down, "transformer.h.{}.mlp.c_proj", "blk.{}.ffn_down", RowOrder::as_is, true, Bias::always},
    {Role::final_norm, "transformer.ln_f", "output_norm", RowOrder::as_is, false, Bias::always},
    {Role::head, "lm_head", "output"},
};

constexpr std::string_view kLlamaClasses[] = {"LlamaForCausalLM", "LLaMAForCausalLM"},
                           kMistralClasses[] = {"MistralForCausalLM"}, kQwen2Classes[] = {"Qwen2ForCausalLM"},
                           kQwen3Classes[] = {"Qwen3ForCausalLM"}, kOptClasses[] = {"OPTForCausalLM"},
                           kGpt2Classes[] = {"GPT2LMHeadModel"};

Config llama_defaults() {
  Config c;
  c.norm_eps = 1e-6;
  return c;
}
Config mistral_defaults() {
  Config c = llama_defaults();
  c.sliding_window = 4096;
  return c;
}
Config qwen3_defaults() {
  Config c = llama_defaults();
  c.head_dim = 128;
  c.qk_norm = true;
  return c;
}
Config opt_defaults() {
  Config c;
  c.norm = NormKind::layer;
  c.activation = Activation::relu;
  c.gated = false;
  c.attention_bias = c.mlp_bias = true;
  c.position = PositionKind::learned;
  c.position_offset = 2;
  c.tied_head = true;
  return c;
}
Config gpt2_defaults() {
  Config c;
  c.norm = NormKind::layer;
  c.activation = Activation::gelu_tanh;
  c.gated = false;
  c.position = PositionKind::learned;
  c.tied_head = true;
  return c;
}

// Where two share GGUF's name the first is what a GGUF file is read as.
const std::vector<Arch>& table() {
  static const std::vector<Arch> archs = {
      {"llama", kLlamaClasses, "llama", kLlamaTensors, llama_defaults(), "model.", SlidingKeys::none, true},
      {"mistral", kMistralClasses, "llama", kLlamaTensors, mistral_defaults(), "model.", SlidingKeys::all, true},
      {"qwen2", kQwen2Classes, "qwen2", kQwen2Tensors, llama_defaults(), "model.", SlidingKeys::switched},
      {"qwen3", kQwen3Classes, "qwen3", kQwen3Tensors, qwen3_defaults(), "model.", SlidingKeys::switched},
      {"opt", kOptClasses, "", kOptTensors, opt_defaults()},
      {"gpt2", kGpt2Classes, "gpt2", kGpt2Tensors, gpt2_defaults(), "transformer."},
  };
  return archs;
}

constexpr std::string_view kRoleNames[] = {"token_embedding",
                                           "position_embedding",
                                           "project_in",
                                           "project_out",
                                           "attn_norm",
                                           "q",
                                           "k",
                                           "v",
                                           "qkv",
                                           "o",
                                           "q_norm",
                                           "k_norm",
                                           "ffn_norm",
                                           "gate",
                                           "up",
                                           "down",
                                           "final_norm",
                                           "head"};
constexpr std::string_view kSiteNames[] = {"attn_in", "attn_out", "ffn_in", "ffn_out"};

}  // namespace

std::string_view name_of(Role role) { return kRoleNames[static_cast<size_t>(role)]; }
std::string_view name_of(Site site) { return kSiteNames[static_cast<size_t>(site)]; }

std::optional<Site> site_of(Role role) {
  switch (role) {
    case Role::q:
    case Role::k:
    case Role::v:
    case Role::qkv:
      return Site::attn_in;
    case Role::o:
      return Site::attn_out;
    case Role::gate:
    case Role::up:
      return Site::ffn_in;
    case Role::down:
      return Site::ffn_out;
    default:
      return std::nullopt;
  }
}

bool is_norm(Role role) {
  switch (role) {
    case Role::attn_norm:
    case Role::ffn_norm:
    case Role::final_norm:
    case Role::q_norm:
    case Role::k_norm:
      return true;
    default:
      return false;
  }
}

std::span<const Arch> all_archs() { return table(); }

const Arch& find_arch(std::string_view name) {
  for (const Arch& arch : table())
    if (arch.name == name) return arch;
  std::vector<std::string_view> known;
  for (const Arch& arch : table()) known.push_back(arch.name);
  throw Error({.what = "unknown architecture",
               .expected = fmt::format("one of {}", fmt::join(known, ", ")),
               .got = std::string(name)});
}

const Arch* find_hf_class(std::string_view name) {
  for (const Arch& arch : table())
    if (std::find(arch.hf_classes.begin(), arch.hf_classes.end(), name) != arch.hf_classes.end()) return &arch;
  return nullptr;
}

const Arch* find_gguf_architecture(std::string_view name) {
  for (const Arch& arch : table())
    if (!arch.gguf.empty() && arch.gguf == name) return &arch;
  return nullptr;
}

const TensorName* find_tensor(const Arch& arch, Role role) {
  for (const TensorName& t : arch.tensors)
    if (t.role == role) return &t;
  return nullptr;
}

bool has_bias(const Config& config, const TensorName& tensor) {
  switch (tensor.bias) {
    case Bias::none:
      return false;
    case Bias::always:
      return true;
    case Bias::attention:
      return config.attention_bias;
    case Bias::mlp:
      return config.mlp_bias;
  }
  return false;
}

bool has_tensor(const Config& config, const TensorName& tensor) {
  switch (tensor.role) {
    case Role::head:
      return !config.tied_head;
    case Role::final_norm:
      return config.final_norm;
    case Role::project_in:
    case Role::project_out:
      return config.embedding != config.hidden;
    default:
      return true;
  }
}

TensorNames::TensorNames(const Arch& arch, const Checkpoint& checkpoint) : arch_(&arch), format_(checkpoint.format()) {
  if (format_ != Format::huggingface) return;
  const std::string embedding = weight(*find_tensor(arch, Role::token_embedding));
  const std::string_view prefix = arch.base_prefix;
  if (!checkpoint.has(embedding) && checkpoint.has(embedding.substr(prefix.size()))) dropped_ = prefix.size();
}

std::string_view TensorNames::pattern(const TensorName& tensor) const {
  if (format_ == Format::gguf) return tensor.gguf;
  return tensor.hf.starts_with(arch_->base_prefix) ? tensor.hf.substr(dropped_) : tensor.hf;
}

std::string TensorNames::base(const TensorName& tensor, int layer) const {
  std::string out(pattern(tensor));
  if (const size_t at = out.find("{}"); at != std::string::npos) out.replace(at, 2, std::to_string(layer));
  return out;
}

std::optional<TensorNames::Place> TensorNames::place(std::string_view name) const {
  const bool weight = name.ends_with(".weight");
  if (!weight && !name.ends_with(".bias")) return std::nullopt;
  const std::string_view wanted = name.substr(0, name.rfind('.'));
  for (const TensorName& t : arch_->tensors) {
    const std::string_view p = pattern(t);
    const size_t at = p.find("{}");
    if (p.empty()) continue;
    if (at == std::string_view::npos) {
      if (p == wanted) return Place{&t, -1, weight};
      continue;
    }
    const std::string_view before = p.substr(0, at), after = p.substr(at + 2);
    if (!wanted.starts_with(before) || !wanted.ends_with(after) || wanted.size() <= before.size() + after.size())
      continue;
    int layer = 0;
    const char *first = wanted.data() + before.size(), *last = wanted.data() + wanted.size() - after.size();
    const auto [end, error] = std::from_chars(first, last, layer);
    if (error == std::errc() && end == last && layer >= 0) return Place{&t, layer, weight};
  }
  return std::nullopt;
}

}  // namespace pare
