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
enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu };
enum class PositionKind : uint8_t { rope, learned };

struct Rope {
  enum class Kind : uint8_t { plain, linear, dynamic, llama3, yarn } kind = Kind::plain;
  double theta = 10000, factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;            // llama3
  int64_t original_context = 0;                                // llama3, yarn, dynamic
  double beta_fast = 32, beta_slow = 1, attention_factor = 0;  // yarn; 0: derived
  std::optional<double> mscale, mscale_all_dim;                // yarn
  int64_t dims = 0;                                            // rotated dimensions of a head
  bool interleaved = false;                                    // pairs are (2i, 2i + 1) instead of (i, i + dims / 2)
  std::vector<float> frequency_factors;  // GGUF's rope_freqs tensor, which divides the frequencies; empty: none
};

struct Config {
  std::string architecture;  // row of the table: "llama", "qwen2", "opt", …
  std::string hf_class;      // "LlamaForCausalLM"
  int64_t layers = 0, hidden = 0, ffn = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0, context = 0;
  int64_t embedding = 0;  // width of the token embedding; differs from hidden where there is a projection (OPT-350m)
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-5;
  bool pre_norm = true;  // false: norms after the residual sums (OPT-350m)
  bool final_norm = true;
  Activation activation = Activation::silu;
  bool gated = true;            // act(gate(x)) * up(x), else act(up(x))
  bool attention_bias = false;  // the optional biases (Bias::attention, Bias::mlp in the table of tensors)
  bool mlp_bias = false;
  PositionKind position = PositionKind::rope;
  int64_t position_offset = 0;  // added to a learned position (OPT: 2)
  Rope rope;
  bool qk_norm = false;  // RMS norm of each head of q and k before the rotation
  bool tied_head = false;
  int64_t sliding_window = 0;        // a token sees itself and this many - 1 before it; 0: all
  std::vector<bool> sliding_layers;  // where the window holds; empty: in every layer
  std::optional<int32_t> bos, eos;
  std::vector<int32_t> eos_ids;  // all of them, `eos` first
  std::string dtype;             // of the stored weights, as config.json says

  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
  int64_t window_of(int layer) const {
    return sliding_layers.empty() || sliding_layers[static_cast<size_t>(layer)] ? sliding_window : 0;
  }
};

// From config.json (both spellings, transformers 4 and 5) or GGUF keys; checked against the table, for sense, and
// against the shapes of the tensors. Throws Error: an unknown architecture lists the known.
Config read_config(const Checkpoint& checkpoint);

}  // namespace pare
