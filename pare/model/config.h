// Hyperparameters and the facts in which architectures differ. The forward pass reads only these, never a family's
// name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pare/container/checkpoint.h"

namespace pare {

enum class NormKind : uint8_t { rms, layer };
// Where a block's halves f are normalized.
enum class NormPlace : uint8_t {
  input,   // x + f(norm(x))
  sum,     // norm(x + f(x))          OPT-350m
  output,  // x + norm(f(x))          OLMo 2
  both,    // x + norm'(f(norm(x)))   Gemma 2
};
enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu, relu_squared, xielu };  // xielu: Config::gated is false
enum class PositionKind : uint8_t { rope, learned, alibi };
// Norms of q and k, of kind Config::norm, before the rotation.
enum class QkNorm : uint8_t {
  none,
  head,   // of each head; all share their weights
  heads,  // of each head, each with weights of its own
  whole,  // of all heads together
};
// How the rows of one fused projection are divided.
enum class QkvLayout : uint8_t {
  parts,        // all of q, then k, then v
  by_head,      // for each head: its q, k and v
  by_kv_head,   // for each key-value head: its queries, its k, its v
  four_shards,  // four shards, in each its heads' q, then v, then k
};

struct Rope {
  enum class Kind : uint8_t { plain, linear, dynamic, llama3, yarn, longrope } kind = Kind::plain;
  double theta = 10000, factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;            // llama3
  int64_t original_context = 0;                                // llama3, yarn, dynamic
  double beta_fast = 32, beta_slow = 1, attention_factor = 0;  // yarn; 0: derived
  std::optional<double> mscale, mscale_all_dim;                // yarn
  int64_t dims = 0;                                            // rotated dimensions of a head
  bool truncated = true;                                       // yarn: the ramp's ends are whole dimensions
  bool interleaved = false;                                    // pairs are (2i, 2i + 1) instead of (i, i + dims / 2)
  std::vector<float> frequency_factors;  // GGUF's rope_freqs tensor, which divides the frequencies; empty: none
  std::vector<float> short_factors, long_factors;  // longrope: up to the original context, and beyond
};

// A feed-forward made of experts, of which each token takes a few.
struct Moe {
  enum class Score : uint8_t {
    softmax,         // over all experts
    chosen_softmax,  // over those chosen, by their logits
    sigmoid,
    sparse_mixer,  // Phi-MoE: one after another, each by a softmax over those near the best that are left
  };
  int64_t experts = 0, per_token = 0, ffn = 0;
  int64_t shared_ffn = 0;         // width of the feed-forward that every token takes besides; 0: none
  bool shared_gate = false;       // its output is multiplied by the sigmoid of a projection of the input
  std::vector<bool> layers = {};  // which have experts; empty: all
  Score score = Score::softmax;
  bool corrected = false;     // a vector is added to the scores by which experts are chosen (not to their weights)
  bool normalized = false;    // the weights of the chosen are divided by their sum
  float smallest_sum = 0;     // by which they are divided
  float scale = 1;            // of the weights
  float near = 0;             // sparse_mixer: relative distance to the best
  bool weighs_input = false;  // the weights multiply what experts read, not what they give
  int64_t groups = 1, groups_kept = 1;  // experts are chosen from the groups whose best (two, where corrected) are best
};

// A gate and a value of limited size. Their columns come in turns. Source: gpt-oss.
struct ClampedGate {
  float alpha = 1.702f, limit = 7;
};

// Queries of layers without rotation grow with their position. Source: Llama 4.
struct Temperature {
  float floor = 8192, scale = 0.1f;
};

// Attention whose queries, keys and values come through narrow projections, with a rotated part that all heads' keys
// share. Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1.
struct LatentAttention {
  int64_t q_rank = 0, kv_rank = 0;  // q_rank 0: queries are projected at once
  int64_t plain = 0, rotated = 0;   // dimensions of a head's query and key
  int64_t value = 0;                // of its value
};

struct Config {
  std::string architecture;  // row of the table: "llama", "qwen2", "opt", …
  std::string hf_class;      // "LlamaForCausalLM"
  int64_t layers = 0, hidden = 0, ffn = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0, context = 0;
  int64_t embedding = 0;  // width of the token embedding; differs from hidden where there is a projection (OPT-350m)
  NormKind norm = NormKind::rms;
  NormPlace norm_place = NormPlace::input;
  double norm_eps = 1e-5;
  bool norm_weights = true;    // false: norms only normalize (OLMo)
  float norm_offset = 0;       // added to the norms' stored weights (Gemma: 1)
  bool parallel = false;       // both halves of a block read the block's input
  bool shared_norm = false;    // and through one norm
  bool residual_norm = false;  // the halves' normalized inputs, not their inputs, are what they are added to
  bool final_norm = true;
  Activation activation = Activation::silu;
  bool gated = true;            // act(gate(x)) * up(x), else act(up(x))
  bool attention_bias = false;  // the optional biases (Bias::attention, … in the table of tensors)
  bool mlp_bias = false;
  bool head_bias = false;
  bool embedding_norm = false;  // the embedded tokens are normalized
  // Factors of what is added to or multiplied: embedded tokens, scores (0: 1/sqrt(head_dim)), outputs of the halves of
  // a block, logits.
  float embedding_scale = 1, attention_scale = 0, residual_scale = 1, logit_scale = 1;
  float attention_cap = 0, logit_cap = 0;  // x becomes cap · tanh(x / cap); 0: no cap
  float qkv_clip = 0;                      // largest magnitude of q, k and v; 0: any
  QkvLayout qkv = QkvLayout::parts;        // where they are one projection
  PositionKind position = PositionKind::rope;
  int64_t position_offset = 0;  // added to a learned position (OPT: 2)
  Rope rope;
  std::optional<Rope> sliding_rope;  // of layers with a window, where it differs
  std::vector<bool> rope_layers;     // where it holds; empty: in every layer
  float alibi_scale = 1;             // of the biases by position
  bool alibi_bf16 = false;           // slopes and biases are rounded to bf16
  QkNorm qk_norm = QkNorm::none;
  bool rotated_norm = false;  // rotated q and k are divided by their root mean square
  std::optional<Temperature> temperature;
  int64_t attention_chunk = 0;  // in layers with rotation a token sees only its own run of so many; 0: all
  bool sinks = false;           // each head has a score that takes part in the softmax and gives nothing
  std::optional<ClampedGate> clamped_gate;
  std::optional<Moe> moe;
  std::optional<LatentAttention> latent;
  bool tied_head = false;
  int64_t sliding_window = 0;        // a token sees itself and this many - 1 before it; 0: all
  std::vector<bool> sliding_layers;  // where the window holds; empty: in every layer
  std::optional<int32_t> bos, eos;
  std::vector<int32_t> eos_ids;  // all of them, `eos` first
  std::string dtype;             // of the stored weights, as config.json says

  bool rotates(int layer) const {
    return position == PositionKind::rope && (rope_layers.empty() || rope_layers[static_cast<size_t>(layer)]);
  }
  const Rope& rope_of_sliding_layers() const { return sliding_rope ? *sliding_rope : rope; }
  const Rope& rope_of(int layer) const { return sliding_rope && window_of(layer) > 0 ? *sliding_rope : rope; }
  // head_dim is that of queries and keys.
  int64_t value_dim() const { return latent ? latent->value : head_dim; }
  int64_t q_width() const { return heads * head_dim; }
  int64_t key_width() const { return kv_heads * head_dim; }
  int64_t value_width() const { return kv_heads * value_dim(); }
  int64_t mixed_width() const { return heads * value_dim(); }  // what the output projection reads
  bool has_experts(int layer) const {
    return moe && (moe->layers.empty() || layer < 0 || moe->layers[static_cast<size_t>(layer)]);
  }
  int64_t window_of(int layer) const {
    return sliding_layers.empty() || sliding_layers[static_cast<size_t>(layer)] ? sliding_window : 0;
  }
};

// From config.json (both spellings, transformers 4 and 5) or GGUF keys; checked against the table, for sense, and
// against the shapes of the tensors. Throws Error: an unknown architecture lists the known.
Config read_config(const Checkpoint& checkpoint);

}  // namespace pare
