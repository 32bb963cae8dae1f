// An architecture is a row of data: names of tensors in both spellings, and where they differ. Adding a Llama-like one
// adds a row.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "pare/model/config.h"

namespace pare {

enum class Role : uint8_t {
  token_embedding,
  embedding_norm,
  position_embedding,
  project_in,
  project_out,
  attn_norm,
  q,
  k,
  v,
  qkv,
  o,
  q_norm,
  k_norm,
  q_a,  // latent attention: down to the narrow width, its norm, and up
  q_a_norm,
  q_b,
  kv_a,
  kv_a_norm,
  kv_b,
  sinks,
  attn_post_norm,
  ffn_norm,
  gate,
  up,
  gate_up,
  down,
  router,
  router_correction,
  expert_gate,
  expert_up,
  expert_gate_up,
  expert_down,
  shared_router,
  shared_gate,
  shared_up,
  shared_down,
  xielu_alpha_p,
  xielu_alpha_n,
  xielu_beta,
  xielu_eps,
  ffn_post_norm,
  final_norm,
  head,
};
std::string_view name_of(Role role);

// The input that a linear layer reads; linears of one site share one Hessian. In the order in which a block computes
// them.
enum class Site : uint8_t { attn_in, q_latent, kv_latent, attn_out, ffn_in, ffn_out, shared_out };
inline constexpr Site kSites[] = {Site::attn_in, Site::q_latent, Site::kv_latent, Site::attn_out,
                                  Site::ffn_in,  Site::ffn_out,  Site::shared_out};
bool is_in_attention(Site site);
std::string_view name_of(Site site);
std::optional<Site> site_of(Role role);  // nullopt: no linear of a block
bool is_norm(Role role);                 // a vector, kept in f32
bool is_of_experts(Role role);           // a linear of one expert

// How GGUF orders the rows of q and k of this architecture.
enum class RowOrder : uint8_t { as_is, interleaved_halves };

// Whether a tensor "….bias" stands beside "….weight": never, always, or where Config::attention_bias, mlp_bias or
// head_bias says.
enum class Bias : uint8_t { none, always, attention, mlp, head };

struct TensorName {
  Role role;
  std::string_view hf;         // "{}" stands for the layer, "{head}" for each head in turn; without ".weight"
  std::string_view gguf = {};  // empty: GGUF has no such tensor
  RowOrder gguf_rows = RowOrder::as_is;
  bool transposed = false;  // the HF file stores [in, out] (Conv1D)
  Bias bias = Bias::none;
  bool (*present)(const Config& config) = nullptr;  // null: always, but for what has_tensor says
  bool bare = false;                                // stored under this name, without ".weight"
  bool stacked = false;  // holds the matrices of all experts, one after another (transposed: each [in, out])
  std::string_view stacked_bias = {};  // the experts' biases, experts x outputs; empty: none
};

// The name of a role's tensor in GGUF, which is the same in all architectures.
constexpr std::string_view gguf_name(Role role) {
  switch (role) {
    case Role::token_embedding:
      return "token_embd";
    case Role::embedding_norm:
      return "token_embd_norm";
    case Role::position_embedding:
      return "position_embd";
    case Role::attn_norm:
      return "blk.{}.attn_norm";
    case Role::q:
      return "blk.{}.attn_q";
    case Role::k:
      return "blk.{}.attn_k";
    case Role::v:
      return "blk.{}.attn_v";
    case Role::qkv:
      return "blk.{}.attn_qkv";
    case Role::o:
      return "blk.{}.attn_output";
    case Role::q_norm:
      return "blk.{}.attn_q_norm";
    case Role::k_norm:
      return "blk.{}.attn_k_norm";
    case Role::attn_post_norm:
      return "blk.{}.post_attention_norm";
    case Role::ffn_norm:
      return "blk.{}.ffn_norm";
    case Role::gate:
      return "blk.{}.ffn_gate";
    case Role::up:
    case Role::gate_up:
      return "blk.{}.ffn_up";
    case Role::down:
      return "blk.{}.ffn_down";
    case Role::ffn_post_norm:
      return "blk.{}.post_ffw_norm";
    case Role::final_norm:
      return "output_norm";
    case Role::head:
      return "output";
    default:
      return "";
  }
}

// How config.json tells which layers slide.
enum class SlidingKeys : uint8_t {
  none,      // no window in this family
  all,       // "sliding_window" holds for every layer
  switched,  // only where "use_sliding_window" is true, from layer "max_window_layers" on, or as "layer_types" says
  pattern,   // as "layer_types" says, or in all but every n-th layer, n being "sliding_window_pattern"
};

class ConfigKeys;

struct Arch {
  std::string_view name;
  std::span<const std::string_view> hf_classes = {};
  std::string_view gguf = {};  // general.architecture; empty: GGUF knows no such model
  std::span<const TensorName> tensors = {};
  Config defaults = {};  // the flags, and numbers that transformers assumes when config.json has none
  std::string_view base_prefix = "model.";  // some HF files leave it out of every name
  SlidingKeys sliding = SlidingKeys::none;
  bool gguf_sizes = false;      // GGUF has the keys vocab_size and rope.dimension_count
  int64_t sliding_pattern = 0;  // where config.json has none
  double rotated_part = 1;      // of a head, where config.json does not say
  void (*read)(const ConfigKeys& keys, Config& config) = nullptr;  // what only this family's config.json has
  void (*derive)(Config& config) = nullptr;                        // what follows from the sizes and is said in no file
  // GGUF's keys without the architecture's name, in the reference converter's order; "file_type" stands for
  // general.file_type. Empty: those of kGgufKeys.
  std::span<const std::string_view> gguf_keys = {};
  void (*gguf_tokens)(Metadata& vocabulary) = nullptr;  // special tokens and flags that no file of the model says
  bool gguf_divides_logits = false;                     // "logit_scale" is what logits are divided by
};
std::span<const Arch> all_archs();
const Arch& find_arch(std::string_view name);               // throws Error listing the known
const Arch* find_hf_class(std::string_view name);           // "LlamaForCausalLM"; nullptr: unknown
const Arch* find_gguf_architecture(std::string_view name);  // nullptr: unknown
const TensorName* find_tensor(const Arch& arch, Role role);
bool has_bias(const Config& config, const TensorName& tensor);
// Whether a model of this configuration has the tensor at all (a tied head or an absent final norm is none).
// layer -1: at least one layer has it.
bool has_tensor(const Config& config, const TensorName& tensor, int layer = -1);
// "a.{}.b" -> "a.{}.b", "….{head}.…" -> one name for each of the heads.
std::vector<std::string> names_of_parts(const Config& config, const TensorName& tensor, const std::string& name);
bool is_per_expert(const TensorName& tensor);
inline bool is_per_layer(const TensorName& tensor) { return tensor.hf.find("{}") != std::string_view::npos; }

// Names of one checkpoint's tensors, in its own spelling and back.
class TensorNames {
 public:
  TensorNames(const Arch& arch, const Checkpoint& checkpoint);
  TensorNames(const Arch& arch, Format format) : arch_(&arch), format_(format) {}  // of a checkpoint to be written
  // With ".weight"; `tensor` is a row of the architecture's table.
  std::string weight(const TensorName& tensor, int layer = 0, int expert = 0) const {
    return base(tensor, layer, expert) + (tensor.bare ? "" : ".weight");
  }
  std::string bias(const TensorName& tensor, int layer = 0, int expert = 0) const {
    return base(tensor, layer, expert) + ".bias";
  }

  std::string stacked_bias(const TensorName& tensor, int layer) const;

  struct Place {
    const TensorName* tensor = nullptr;
    int layer = -1;      // -1: not in a block
    int part = -1;       // the expert, or the head of a norm in parts; -1: neither
    bool weight = true;  // false: the bias
  };
  // What a logical name ("….weight", "….bias") stands for; nullopt: nothing that the table knows.
  std::optional<Place> place(std::string_view name) const;

 private:
  std::string base(const TensorName& tensor, int layer, int expert) const;
  std::string_view pattern(const TensorName& tensor) const;
  const Arch* arch_;
  Format format_;
  size_t dropped_ = 0;  // characters of the base prefix that this checkpoint leaves out
};

// The name by which a model asks for a stored tensor: its own, or the embedding's where a tied model stores only the
// head.
std::string sought_name(const Config& config, const Arch& arch, const Checkpoint& checkpoint,
                        const std::string& stored);

// Rows = outputs, cols = inputs, of the tensor as a model of this configuration multiplies with it (a Conv1D already
// turned); vectors: 1 x n.
Shape expected_shape(const Config& config, Role role);
// Throws Error naming tensor, expected and found shape where the checkpoint contradicts its configuration. Reads no
// weights.
void check_shapes(const Config& config, const Arch& arch, const Checkpoint& checkpoint);

// GGUF metadata of this model (general.* and {arch}.*), in the order of the reference converter. `name` is
// general.name; `parameters` gives general.size_label (0: none); `file_type` stands where the converter puts it.
// `hf_config` is config.json, or null when the checkpoint has none.
Metadata gguf_metadata(const Config& config, const Arch& arch, const Json& hf_config, const std::string& name,
                       int64_t parameters = 0, std::optional<uint32_t> file_type = std::nullopt);

}  // namespace pare
