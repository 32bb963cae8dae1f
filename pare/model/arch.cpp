#include "pare/model/arch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "pare/base/error.h"
#include "pare/model/families.h"

namespace pare {
namespace {

// Where two share GGUF's name the first is what a GGUF file is read as.
const std::vector<Arch>& table() {
  static const std::vector<Arch> archs = [] {
    std::vector<Arch> all;
    for (const auto family : {llama_family, moe_family, gpt_family})
      for (Arch& arch : family()) all.push_back(std::move(arch));
    return all;
  }();
  return archs;
}

constexpr std::string_view kRoleNames[] = {"token_embedding",
                                           "embedding_norm",
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
                                           "q_a",
                                           "q_a_norm",
                                           "q_b",
                                           "kv_a",
                                           "kv_a_norm",
                                           "kv_b",
                                           "sinks",
                                           "attn_post_norm",
                                           "ffn_norm",
                                           "gate",
                                           "up",
                                           "gate_up",
                                           "down",
                                           "router",
                                           "router_correction",
                                           "expert_gate",
                                           "expert_up",
                                           "expert_gate_up",
                                           "expert_down",
                                           "shared_router",
                                           "shared_gate",
                                           "shared_up",
                                           "shared_down",
                                           "xielu_alpha_p",
                                           "xielu_alpha_n",
                                           "xielu_beta",
                                           "xielu_eps",
                                           "ffn_post_norm",
                                           "final_norm",
                                           "head"};
constexpr std::string_view kSiteNames[] = {"attn_in", "q_latent", "kv_latent", "attn_out",
                                           "ffn_in",  "ffn_out",  "shared_out"};

}  // namespace

std::string_view name_of(Role role) { return kRoleNames[static_cast<size_t>(role)]; }
std::string_view name_of(Site site) { return kSiteNames[static_cast<size_t>(site)]; }

bool is_in_attention(Site site) { return site <= Site::attn_out; }

bool is_of_experts(Role role) {
  return role == Role::expert_gate || role == Role::expert_up || role == Role::expert_gate_up ||
         role == Role::expert_down;
}

bool is_per_expert(const TensorName& tensor) { return tensor.hf.find("{expert}") != std::string_view::npos; }

std::optional<Site> site_of(Role role) {
  switch (role) {
    case Role::q:
    case Role::k:
    case Role::v:
    case Role::qkv:
    case Role::q_a:
    case Role::kv_a:
      return Site::attn_in;
    case Role::q_b:
      return Site::q_latent;
    case Role::kv_b:
      return Site::kv_latent;
    case Role::o:
      return Site::attn_out;
    case Role::gate:
    case Role::up:
    case Role::gate_up:
    case Role::expert_gate:
    case Role::expert_up:
    case Role::expert_gate_up:
    case Role::shared_gate:
    case Role::shared_up:
      return Site::ffn_in;
    case Role::down:
    case Role::expert_down:
      return Site::ffn_out;
    case Role::shared_down:
      return Site::shared_out;
    default:
      return std::nullopt;
  }
}

bool is_norm(Role role) {
  switch (role) {
    case Role::embedding_norm:
    case Role::attn_norm:
    case Role::attn_post_norm:
    case Role::ffn_norm:
    case Role::ffn_post_norm:
    case Role::final_norm:
    case Role::q_norm:
    case Role::k_norm:
    case Role::q_a_norm:
    case Role::kv_a_norm:
    case Role::router_correction:
    case Role::sinks:
    case Role::xielu_alpha_p:
    case Role::xielu_alpha_n:
    case Role::xielu_beta:
    case Role::xielu_eps:
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
    case Bias::head:
      return config.head_bias;
  }
  return false;
}

bool has_tensor(const Config& config, const TensorName& tensor, int layer) {
  if (tensor.present && !tensor.present(config)) return false;
  if (is_norm(tensor.role) && !config.norm_weights) return false;
  switch (tensor.role) {
    case Role::head:
      return !config.tied_head;
    case Role::final_norm:
      return config.final_norm;
    case Role::embedding_norm:
      return config.embedding_norm;
    case Role::project_in:
    case Role::project_out:
      return config.embedding != config.hidden;
    case Role::q_norm:
    case Role::k_norm:
      return config.qk_norm != QkNorm::none;
    case Role::q:
      return !config.latent || config.latent->q_rank == 0;
    case Role::q_a:
    case Role::q_a_norm:
    case Role::q_b:
      return config.latent && config.latent->q_rank > 0;
    case Role::gate:
    case Role::up:
    case Role::gate_up:
    case Role::down:
      return layer < 0 || !config.has_experts(layer);
    case Role::router_correction:
      return config.has_experts(layer) && config.moe->corrected;
    case Role::router:
    case Role::expert_gate:
    case Role::expert_up:
    case Role::expert_gate_up:
    case Role::expert_down:
      return config.has_experts(layer);
    case Role::sinks:
      return config.sinks;
    case Role::shared_router:
      return config.has_experts(layer) && config.moe->shared_gate;
    case Role::shared_gate:
    case Role::shared_up:
    case Role::shared_down:
      return config.has_experts(layer) && config.moe->shared_ffn > 0;
    default:
      return true;
  }
}

std::vector<std::string> names_of_parts(const Config& config, const TensorName& tensor, const std::string& name) {
  constexpr std::string_view kHead = "{head}";
  const size_t at = name.find(kHead);
  if (at == std::string::npos) return {name};
  std::vector<std::string> names;
  for (int64_t h = 0; h < (tensor.role == Role::k_norm ? config.kv_heads : config.heads); ++h)
    names.push_back(std::string(name).replace(at, kHead.size(), std::to_string(h)));
  return names;
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

std::string TensorNames::base(const TensorName& tensor, int layer, int expert) const {
  std::string out(pattern(tensor));
  const auto fill = [&](std::string_view mark, int number) {
    if (const size_t at = out.find(mark); at != std::string::npos) out.replace(at, mark.size(), std::to_string(number));
  };
  fill("{}", layer);
  fill("{expert}", expert);
  return out;
}

std::string TensorNames::stacked_bias(const TensorName& tensor, int layer) const {
  TensorName bias = tensor;
  bias.hf = tensor.stacked_bias;
  return base(bias, layer, 0);
}

namespace {

// Whether a name fits a pattern in which "{}" stands for a layer and another mark for a part.
bool fits(std::string_view pattern, std::string_view name, int& layer, int& part) {
  layer = part = -1;
  for (size_t open; (open = pattern.find('{')) != std::string_view::npos;) {
    if (name.substr(0, open) != pattern.substr(0, open)) return false;
    name.remove_prefix(open);
    const bool is_layer = pattern[open + 1] == '}';
    pattern.remove_prefix(pattern.find('}') + 1);
    int number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc() || number < 0) return false;
    name.remove_prefix(static_cast<size_t>(end - name.data()));
    (is_layer ? layer : part) = number;
  }
  return name == pattern;
}

}  // namespace

std::optional<TensorNames::Place> TensorNames::place(std::string_view name) const {
  const bool weight = name.ends_with(".weight"), bias = name.ends_with(".bias");
  for (const TensorName& t : arch_->tensors) {
    const std::string_view p = pattern(t);
    if (p.empty() || (!t.bare && !weight && !bias)) continue;
    Place place{&t, -1, -1, t.bare || weight};
    if (fits(p, t.bare ? name : name.substr(0, name.rfind('.')), place.layer, place.part)) return place;
  }
  return std::nullopt;
}

}  // namespace pare
