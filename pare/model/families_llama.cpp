// Llama and what followed it: norms before the halves of a block, rotary positions, mostly gated feed-forwards.
#include <algorithm>
#include <cmath>
#include <span>

#include "pare/model/families.h"

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

// ---- variations on Llama's names. Families without a name for GGUF are not written there yet.

constexpr TensorName row(Role role, std::string_view hf, Bias bias = Bias::none,
                         bool (*present)(const Config&) = nullptr) {
  return {.role = role, .hf = hf, .gguf = gguf_name(role), .bias = bias, .present = present};
}

constexpr TensorName kEmbedding = row(Role::token_embedding, "model.embed_tokens"),
                     kAttnNorm = row(Role::attn_norm, "model.layers.{}.input_layernorm"),
                     kQ = row(Role::q, "model.layers.{}.self_attn.q_proj", Bias::attention),
                     kK = row(Role::k, "model.layers.{}.self_attn.k_proj", Bias::attention),
                     kV = row(Role::v, "model.layers.{}.self_attn.v_proj", Bias::attention),
                     kO = row(Role::o, "model.layers.{}.self_attn.o_proj", Bias::attention),
                     kPlainO = row(Role::o, "model.layers.{}.self_attn.o_proj"),
                     kQNorm = row(Role::q_norm, "model.layers.{}.self_attn.q_norm"),
                     kKNorm = row(Role::k_norm, "model.layers.{}.self_attn.k_norm"),
                     kFfnNorm = row(Role::ffn_norm, "model.layers.{}.post_attention_layernorm"),
                     kGate = row(Role::gate, "model.layers.{}.mlp.gate_proj", Bias::mlp),
                     kUp = row(Role::up, "model.layers.{}.mlp.up_proj", Bias::mlp),
                     kGateUp = row(Role::gate_up, "model.layers.{}.mlp.gate_up_proj"),
                     kDown = row(Role::down, "model.layers.{}.mlp.down_proj", Bias::mlp),
                     kFinalNorm = row(Role::final_norm, "model.norm"), kHead = row(Role::head, "lm_head");

constexpr TensorName reordered(TensorName t) {
  t.gguf_rows = RowOrder::interleaved_halves;
  return t;
}
constexpr TensorName kReorderedLlama[] = {kEmbedding, kAttnNorm, reordered(kQ), reordered(kK), kV,         kO,
                                          kFfnNorm,   kGate,     kUp,           kDown,         kFinalNorm, kHead};

// Llama's, with the optional norms of q and k.
constexpr TensorName kNamesOfLlama[] = {kEmbedding, kAttnNorm, kQ,    kK,  kV,    kO,         kQNorm,
                                        kKNorm,     kFfnNorm,  kGate, kUp, kDown, kFinalNorm, kHead};
constexpr TensorName kUngatedTensors[] = {kEmbedding, kAttnNorm, kQ,    kK,         kV,   kO,
                                          kFfnNorm,   kUp,       kDown, kFinalNorm, kHead};
// Layer norms with biases.
constexpr TensorName kNemotronTensors[] = {
    kEmbedding,
    row(Role::attn_norm, "model.layers.{}.input_layernorm", Bias::always),
    kQ,
    kK,
    kV,
    kO,
    row(Role::ffn_norm, "model.layers.{}.post_attention_layernorm", Bias::always),
    kUp,
    kDown,
    row(Role::final_norm, "model.norm", Bias::always),
    kHead};
constexpr TensorName kGemma2Tensors[] = {kEmbedding,
                                         kAttnNorm,
                                         kQ,
                                         kK,
                                         kV,
                                         kO,
                                         kQNorm,
                                         kKNorm,
                                         row(Role::attn_post_norm, "model.layers.{}.post_attention_layernorm"),
                                         row(Role::ffn_norm, "model.layers.{}.pre_feedforward_layernorm"),
                                         kGate,
                                         kUp,
                                         kDown,
                                         row(Role::ffn_post_norm, "model.layers.{}.post_feedforward_layernorm"),
                                         kFinalNorm,
                                         kHead};
constexpr TensorName kOlmo2Tensors[] = {
    kEmbedding, kQ,     kK,     kV,
    kO,         kQNorm, kKNorm, row(Role::attn_post_norm, "model.layers.{}.post_attention_layernorm"),
    kGate,      kUp,    kDown,  row(Role::ffn_post_norm, "model.layers.{}.post_feedforward_layernorm"),
    kFinalNorm, kHead};
constexpr TensorName bare(Role role, std::string_view hf) { return {.role = role, .hf = hf, .bare = true}; }
constexpr TensorName kApertusTensors[] = {kEmbedding,
                                          row(Role::attn_norm, "model.layers.{}.attention_layernorm"),
                                          kQ,
                                          kK,
                                          kV,
                                          kO,
                                          kQNorm,
                                          kKNorm,
                                          row(Role::ffn_norm, "model.layers.{}.feedforward_layernorm"),
                                          kUp,
                                          kDown,
                                          bare(Role::xielu_alpha_p, "model.layers.{}.mlp.act_fn.alpha_p"),
                                          bare(Role::xielu_alpha_n, "model.layers.{}.mlp.act_fn.alpha_n"),
                                          bare(Role::xielu_beta, "model.layers.{}.mlp.act_fn.beta"),
                                          bare(Role::xielu_eps, "model.layers.{}.mlp.act_fn.eps"),
                                          kFinalNorm,
                                          kHead};
// One norm for both halves.
constexpr TensorName kCohereTensors[] = {kEmbedding, kAttnNorm, kQ,  kK,    kV,         kO,   kQNorm,
                                         kKNorm,     kGate,     kUp, kDown, kFinalNorm, kHead};
constexpr TensorName kPhi3Tensors[] = {kEmbedding, kAttnNorm,  row(Role::qkv, "model.layers.{}.self_attn.qkv_proj"),
                                       kPlainO,    kFfnNorm,   kGateUp,
                                       kDown,      kFinalNorm, kHead};
constexpr TensorName kGlmTensors[] = {kEmbedding, kAttnNorm, kQ,    kK,         kV,   kPlainO,
                                      kFfnNorm,   kGateUp,   kDown, kFinalNorm, kHead};
constexpr TensorName kGlm4Tensors[] = {kEmbedding,
                                       kAttnNorm,
                                       kQ,
                                       kK,
                                       kV,
                                       kPlainO,
                                       row(Role::attn_post_norm, "model.layers.{}.post_self_attn_layernorm"),
                                       kFfnNorm,
                                       kGateUp,
                                       kDown,
                                       row(Role::ffn_post_norm, "model.layers.{}.post_mlp_layernorm"),
                                       kFinalNorm,
                                       kHead};
constexpr TensorName kStableLmTensors[] = {kEmbedding,
                                           row(Role::attn_norm, "model.layers.{}.input_layernorm", Bias::always),
                                           kQ,
                                           kK,
                                           kV,
                                           kPlainO,
                                           row(Role::q_norm, "model.layers.{}.self_attn.q_layernorm.norms.{head}"),
                                           row(Role::k_norm, "model.layers.{}.self_attn.k_layernorm.norms.{head}"),
                                           row(Role::ffn_norm, "model.layers.{}.post_attention_layernorm", Bias::always,
                                               [](const Config& c) { return !c.parallel; }),
                                           kGate,
                                           kUp,
                                           kDown,
                                           row(Role::final_norm, "model.norm", Bias::always),
                                           kHead};
constexpr TensorName kStarcoder2Tensors[] = {
    kEmbedding,
    row(Role::attn_norm, "model.layers.{}.input_layernorm", Bias::always),
    kQ,
    kK,
    kV,
    kO,
    row(Role::ffn_norm, "model.layers.{}.post_attention_layernorm", Bias::always),
    row(Role::up, "model.layers.{}.mlp.c_fc", Bias::mlp),
    row(Role::down, "model.layers.{}.mlp.c_proj", Bias::mlp),
    row(Role::final_norm, "model.norm", Bias::always),
    kHead};
constexpr TensorName kPhiTensors[] = {kEmbedding,
                                      row(Role::attn_norm, "model.layers.{}.input_layernorm", Bias::always),
                                      row(Role::q, "model.layers.{}.self_attn.q_proj", Bias::always),
                                      row(Role::k, "model.layers.{}.self_attn.k_proj", Bias::always),
                                      row(Role::v, "model.layers.{}.self_attn.v_proj", Bias::always),
                                      row(Role::o, "model.layers.{}.self_attn.dense", Bias::always),
                                      row(Role::q_norm, "model.layers.{}.self_attn.q_layernorm", Bias::always),
                                      row(Role::k_norm, "model.layers.{}.self_attn.k_layernorm", Bias::always),
                                      row(Role::up, "model.layers.{}.mlp.fc1", Bias::always),
                                      row(Role::down, "model.layers.{}.mlp.fc2", Bias::always),
                                      row(Role::final_norm, "model.final_layernorm", Bias::always),
                                      row(Role::head, "lm_head", Bias::always)};

constexpr std::string_view kLlamaClasses[] = {"LlamaForCausalLM", "LLaMAForCausalLM"},
                           kMistralClasses[] = {"MistralForCausalLM"}, kQwen2Classes[] = {"Qwen2ForCausalLM"},
                           kQwen3Classes[] = {"Qwen3ForCausalLM"}, kApertusClasses[] = {"ApertusForCausalLM"},
                           kArceeClasses[] = {"ArceeForCausalLM"}, kCohereClasses[] = {"CohereForCausalLM"},
                           kCohere2Classes[] = {"Cohere2ForCausalLM"}, kGemmaClasses[] = {"GemmaForCausalLM"},
                           kGemma2Classes[] = {"Gemma2ForCausalLM"}, kGemma3Classes[] = {"Gemma3ForCausalLM"},
                           kGlmClasses[] = {"GlmForCausalLM"}, kGlm4Classes[] = {"Glm4ForCausalLM"},
                           kGraniteClasses[] = {"GraniteForCausalLM"}, kNemotronClasses[] = {"NemotronForCausalLM"},
                           kOlmoClasses[] = {"OlmoForCausalLM"}, kOlmo2Classes[] = {"Olmo2ForCausalLM"},
                           kPhiClasses[] = {"PhiForCausalLM"}, kPhi3Classes[] = {"Phi3ForCausalLM"},
                           kSmolLm3Classes[] = {"SmolLM3ForCausalLM"},
                           kStableLmClasses[] = {"StableLmForCausalLM", "StableLMEpochForCausalLM"},
                           kStarcoder2Classes[] = {"Starcoder2ForCausalLM"};

// ---- GGUF's keys where their order or choice is a family's own

#define PARE_COMMON_KEYS                                                                              \
  "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count", \
      "attention.head_count_kv", "rope.freq_base"
constexpr std::string_view kGraniteKeys[] = {PARE_COMMON_KEYS,  "attention.layer_norm_rms_epsilon",
                                             "head_size",       "file_type",
                                             "vocab_size",      "rope.dimension_count",
                                             "attention.scale", "embedding_scale",
                                             "residual_scale",  "logit_scale"},
                           kSmolLm3Keys[] = {PARE_COMMON_KEYS, "attention.layer_norm_rms_epsilon",
                                             "head_size",      "file_type",
                                             "vocab_size",     "rope.dimension_count"},
                           kOlmoKeys[] = {PARE_COMMON_KEYS, "file_type", "attention.layer_norm_epsilon",
                                          "attention.clamp_kqv"},
                           kNemotronKeys[] = {PARE_COMMON_KEYS,
                                              "attention.layer_norm_rms_epsilon",
                                              "head_size",
                                              "file_type",
                                              "vocab_size",
                                              "attention.layer_norm_epsilon",
                                              "rope.dimension_count",
                                              "no_rope_scaling"},
                           kGlm4Keys[] = {PARE_COMMON_KEYS, "attention.layer_norm_rms_epsilon", "head_size",
                                          "file_type", "rope.dimension_count"},
                           kCohereKeys[] = {PARE_COMMON_KEYS, "attention.layer_norm_epsilon",
                                            "head_size",      "file_type",
                                            "logit_scale",    "no_rope_scaling"},
                           kCohere2Keys[] = {PARE_COMMON_KEYS, "attention.layer_norm_epsilon",
                                             "head_size",      "file_type",
                                             "logit_scale",    "attention.sliding_window",
                                             "vocab_size",     "rope.dimension_count",
                                             "no_rope_scaling"},
                           kGemma3Keys[] = {PARE_COMMON_KEYS, "rope.freq_base_swa", "attention.layer_norm_rms_epsilon",
                                            "head_size",      "file_type",          "attention.sliding_window"},
                           kPhi3Keys[] = {"context_length",
                                          "rope.scaling.original_context_length",
                                          "embedding_length",
                                          "feed_forward_length",
                                          "block_count",
                                          "attention.head_count",
                                          "attention.head_count_kv",
                                          "attention.layer_norm_rms_epsilon",
                                          "rope.dimension_count",
                                          "plain_freq_base",
                                          "file_type",
                                          "sliding_window_or_0"},
                           kPhiKeys[] = {"context_length",
                                         "embedding_length",
                                         "feed_forward_length",
                                         "block_count",
                                         "attention.head_count",
                                         "attention.head_count_kv",
                                         "attention.layer_norm_epsilon",
                                         "rope.dimension_count",
                                         "file_type",
                                         "no_bos"},
                           kStableLmKeys[] = {"context_length",
                                              "embedding_length",
                                              "block_count",
                                              "feed_forward_length",
                                              "rope.dimension_count",
                                              "attention.head_count",
                                              "attention.head_count_kv",
                                              "use_parallel_residual",
                                              "attention.layer_norm_epsilon",
                                              "file_type"},
                           kGemmaKeys[] = {"context_length",
                                           "embedding_length",
                                           "block_count",
                                           "feed_forward_length",
                                           "attention.head_count",
                                           "attention.head_count_kv",
                                           "attention.layer_norm_rms_epsilon",
                                           "head_size",
                                           "file_type"},
                           kGemma2Keys[] = {"context_length",
                                            "embedding_length",
                                            "block_count",
                                            "feed_forward_length",
                                            "attention.head_count",
                                            "attention.head_count_kv",
                                            "attention.layer_norm_rms_epsilon",
                                            "head_size",
                                            "file_type",
                                            "attn_logit_softcapping",
                                            "final_logit_softcapping",
                                            "attention.sliding_window"};
#undef PARE_COMMON_KEYS

// ---- what config.json of one family has and others' has not

float positive(const ConfigKeys& keys, const char* key, double otherwise) {
  const double x = keys.number({key}).value_or(otherwise);
  if (!(x > 0)) keys.refuse(key, "a number above 0", Json(x));
  return static_cast<float>(x);
}

void derive_gemma(Config& c) { c.embedding_scale = std::sqrt(static_cast<float>(c.hidden)); }
// GGUF does not say by what the two largest models' scores are scaled.
void derive_gemma2(Config& c) {
  derive_gemma(c);
  const bool largest = c.layers == 46 || c.layers == 62;
  if (c.attention_scale == 0 && largest && c.heads > 0)
    c.attention_scale = 1 / std::sqrt(static_cast<float>(c.hidden) / static_cast<float>(c.heads));
}
void derive_cohere2(Config& c) { c.rope_layers = c.sliding_layers; }
void derive_smollm3(Config& c) {
  if (!c.rope_layers.empty()) return;
  for (int64_t i = 0; i < c.layers; ++i) c.rope_layers.push_back((i + 1) % 4 != 0);
}

void read_gemma2(const ConfigKeys& keys, Config& c) {
  c.attention_scale = 1 / std::sqrt(positive(keys, "query_pre_attn_scalar", 256));
  c.attention_cap = static_cast<float>(keys.number({"attn_logit_softcapping"}).value_or(0));
  c.logit_cap = static_cast<float>(keys.number({"final_logit_softcapping"}).value_or(0));
}

void read_cohere(const ConfigKeys& keys, Config& c) {
  c.logit_scale = positive(keys, "logit_scale", 0.0625);
  if (keys.boolean({"use_qk_norm"}).value_or(false)) c.qk_norm = QkNorm::heads;
}

void read_olmo(const ConfigKeys& keys, Config& c) {
  c.qkv_clip = static_cast<float>(keys.number({"clip_qkv"}).value_or(0));
}

void read_phi(const ConfigKeys& keys, Config& c) {
  if (keys.boolean({"qk_layernorm"}).value_or(false)) c.qk_norm = QkNorm::head;
}

void read_stablelm(const ConfigKeys& keys, Config& c) {
  c.parallel = c.shared_norm = keys.boolean({"use_parallel_residual"}).value_or(false);
  if (keys.boolean({"qk_layernorm"}).value_or(false)) c.qk_norm = QkNorm::heads;
}

// ---- GGUF

void without_space_prefix(Metadata& vocabulary) { vocabulary.set("tokenizer.ggml.add_space_prefix", false); }
void gemma_tokens(Metadata& vocabulary) {
  vocabulary.set("tokenizer.ggml.eot_token_id", uint32_t{107});  // <end_of_turn>
  without_space_prefix(vocabulary);
}
void nemotron_tokens(Metadata& vocabulary) {
  vocabulary.set("tokenizer.ggml.padding_token_id", uint32_t{0});
  vocabulary.set("tokenizer.ggml.unknown_token_id", uint32_t{1});
}
void glm4_tokens(Metadata& vocabulary) {
  const MetaValue* tokens = vocabulary.find("tokenizer.ggml.tokens");
  if (!tokens || !std::holds_alternative<std::vector<std::string>>(*tokens)) return;
  const auto list = std::get<std::vector<std::string>>(*tokens);  // a copy: set() may move the original
  const auto set = [&](const char* key, std::string_view token) {
    if (const auto at = std::ranges::find(list, token); at != list.end())
      vocabulary.set(key, static_cast<uint32_t>(at - list.begin()));
  };
  set("tokenizer.ggml.eos_token_id", "<|endoftext|>");
  set("tokenizer.ggml.eot_token_id", "<|user|>");
  set("tokenizer.ggml.unknown_token_id", "<|endoftext|>");
  set("tokenizer.ggml.bos_token_id", "<|endoftext|>");
}

struct GgufRow {
  std::string_view name, gguf;
  std::span<const std::string_view> keys = {};
  void (*derive)(Config&) = nullptr;
  void (*tokens)(Metadata&) = nullptr;
};
constexpr GgufRow kGguf[] = {{"gemma", "gemma", kGemmaKeys, derive_gemma, gemma_tokens},
                             {"gemma2", "gemma2", kGemma2Keys, derive_gemma2, without_space_prefix},
                             {"gemma3_text", "gemma3", kGemma3Keys, derive_gemma2, without_space_prefix},
                             {"cohere", "command-r", kCohereKeys},
                             {"cohere2", "cohere2", kCohere2Keys, derive_cohere2},
                             {"glm4", "glm4", kGlm4Keys, nullptr, glm4_tokens},
                             {"granite", "granite", kGraniteKeys},
                             {"nemotron", "nemotron", kNemotronKeys, nullptr, nemotron_tokens},
                             {"olmo", "olmo", kOlmoKeys},
                             {"olmo2", "olmo2"},
                             {"phi", "phi2", kPhiKeys},
                             {"phi3", "phi3", kPhi3Keys},
                             {"stablelm", "stablelm", kStableLmKeys},
                             {"smollm3", "smollm3", kSmolLm3Keys, derive_smollm3},
                             {"starcoder2", "starcoder2"}};

// ---- defaults

Config llama_defaults() {
  Config c;
  c.norm_eps = 1e-6;
  return c;
}
template <class Change>
Config like_llama(Change&& change) {
  Config c = llama_defaults();
  change(c);
  return c;
}

Config gemma_defaults() {
  return like_llama([](Config& c) {
    c.norm_offset = 1;
    c.activation = Activation::gelu_tanh;
    c.head_dim = 256;
    c.tied_head = true;
  });
}
Config gemma2_defaults() {
  Config c = gemma_defaults();
  c.norm_place = NormPlace::both;
  c.sliding_window = 4096;
  return c;
}
Config gemma3_defaults() {
  Config c = gemma2_defaults();
  c.qk_norm = QkNorm::head;
  c.rope.theta = 1e6;
  return c;
}
Config cohere_defaults() {
  return like_llama([](Config& c) {
    c.norm = NormKind::layer;
    c.norm_eps = 1e-5;
    c.parallel = c.shared_norm = true;
    c.rope.interleaved = true;
    c.tied_head = true;
  });
}
Config layer_norm_defaults() {
  return like_llama([](Config& c) {
    c.norm = NormKind::layer;
    c.norm_eps = 1e-5;
  });
}
Config glm_defaults() {
  return like_llama([](Config& c) {
    c.rope.interleaved = true;
    c.norm_eps = 1.5625e-7;
    c.head_dim = 128;
  });
}

}  // namespace

void read_granite(const ConfigKeys& keys, Config& c) {
  c.embedding_scale = positive(keys, "embedding_multiplier", 1);
  c.attention_scale = positive(keys, "attention_multiplier", 1);
  c.residual_scale = positive(keys, "residual_multiplier", 1);
  c.logit_scale = 1 / positive(keys, "logits_scaling", 1);
}

void read_rope_layers(const ConfigKeys& keys, Config& c) {
  if (c.layers < 1 || c.layers > 10'000) return;  // refused with the other sizes
  c.rope_layers.assign(static_cast<size_t>(c.layers), true);
  const Json* flags = keys.find("no_rope_layers");  // 1: it has
  if (flags && (!flags->is_array() || std::ssize(*flags) != c.layers))
    keys.refuse("no_rope_layers", "one entry per layer", *flags);
  const int64_t interval = keys.integer({"no_rope_layer_interval"}).value_or(4);
  if (interval < 1) keys.refuse("no_rope_layer_interval", "at least 1", Json(interval));
  for (int64_t i = 0; i < c.layers; ++i)
    c.rope_layers[static_cast<size_t>(i)] = flags ? (*flags)[static_cast<size_t>(i)] != 0 : (i + 1) % interval != 0;
}

std::vector<Arch> llama_family() {
  std::vector<Arch> all = {
      {"llama", kLlamaClasses, "llama", kLlamaTensors, llama_defaults(), "model.", SlidingKeys::none, true},
      {"mistral", kMistralClasses, "llama", kLlamaTensors, like_llama([](Config& c) { c.sliding_window = 4096; }),
       "model.", SlidingKeys::all, true},
      {"qwen2", kQwen2Classes, "qwen2", kQwen2Tensors, llama_defaults(), "model.", SlidingKeys::switched},
      {"qwen3", kQwen3Classes, "qwen3", kQwen3Tensors, like_llama([](Config& c) {
         c.head_dim = 128;
         c.qk_norm = QkNorm::head;
       }),
       "model.", SlidingKeys::switched},
  };
  all.push_back(
      {.name = "arcee", .hf_classes = kArceeClasses, .tensors = kUngatedTensors, .defaults = like_llama([](Config& c) {
                                                                                   c.norm_eps = 1e-5;
                                                                                   c.activation =
                                                                                       Activation::relu_squared;
                                                                                   c.gated = false;
                                                                                 })});
  all.push_back({.name = "cohere",
                 .hf_classes = kCohereClasses,
                 .tensors = kCohereTensors,
                 .defaults = cohere_defaults(),
                 .read = read_cohere});
  all.push_back({.name = "cohere2",
                 .hf_classes = kCohere2Classes,
                 .tensors = kCohereTensors,
                 .defaults = cohere_defaults(),
                 .sliding = SlidingKeys::pattern,
                 .sliding_pattern = 4,
                 .read = read_cohere});
  all.push_back({.name = "gemma", .hf_classes = kGemmaClasses, .tensors = kNamesOfLlama, .defaults = gemma_defaults()});
  all.push_back({.name = "gemma2",
                 .hf_classes = kGemma2Classes,
                 .tensors = kGemma2Tensors,
                 .defaults = gemma2_defaults(),
                 .sliding = SlidingKeys::pattern,
                 .sliding_pattern = 2,
                 .read = read_gemma2});
  all.push_back({.name = "gemma3_text",
                 .hf_classes = kGemma3Classes,
                 .tensors = kGemma2Tensors,
                 .defaults = gemma3_defaults(),
                 .sliding = SlidingKeys::pattern,
                 .sliding_pattern = 6,
                 .read = read_gemma2});
  all.push_back({.name = "glm",
                 .hf_classes = kGlmClasses,
                 .tensors = kGlmTensors,
                 .defaults = glm_defaults(),
                 .rotated_part = 0.5});
  Config apertus = llama_defaults();
  apertus.norm_eps = 1e-5;
  apertus.activation = Activation::xielu;
  apertus.gated = false;
  apertus.qk_norm = QkNorm::head;
  apertus.rope.theta = 12e6;
  all.push_back({.name = "apertus", .hf_classes = kApertusClasses, .tensors = kApertusTensors, .defaults = apertus});
  Config glm4 = glm_defaults();
  glm4.norm_place = NormPlace::both;
  all.push_back(
      {.name = "glm4", .hf_classes = kGlm4Classes, .tensors = kGlm4Tensors, .defaults = glm4, .rotated_part = 0.5});
  all.push_back({.name = "granite",
                 .hf_classes = kGraniteClasses,
                 .tensors = kReorderedLlama,
                 .defaults = llama_defaults(),
                 .read = read_granite});
  Config nemotron = layer_norm_defaults();
  nemotron.norm_offset = 1;
  nemotron.activation = Activation::relu_squared;
  nemotron.gated = false;
  all.push_back({.name = "nemotron",
                 .hf_classes = kNemotronClasses,
                 .tensors = kNemotronTensors,
                 .defaults = nemotron,
                 .rotated_part = 0.5});
  Config olmo = layer_norm_defaults();
  olmo.norm_weights = false;
  all.push_back(
      {.name = "olmo", .hf_classes = kOlmoClasses, .tensors = kReorderedLlama, .defaults = olmo, .read = read_olmo});
  all.push_back(
      {.name = "olmo2", .hf_classes = kOlmo2Classes, .tensors = kOlmo2Tensors, .defaults = like_llama([](Config& c) {
                                                                                 c.norm_eps = 1e-5;
                                                                                 c.norm_place = NormPlace::output;
                                                                                 c.qk_norm = QkNorm::whole;
                                                                               })});
  Config phi = layer_norm_defaults();
  phi.parallel = phi.shared_norm = true;
  phi.activation = Activation::gelu_tanh;
  phi.gated = false;
  all.push_back({.name = "phi",
                 .hf_classes = kPhiClasses,
                 .tensors = kPhiTensors,
                 .defaults = phi,
                 .rotated_part = 0.5,
                 .read = read_phi});
  all.push_back({.name = "phi3",
                 .hf_classes = kPhi3Classes,
                 .tensors = kPhi3Tensors,
                 .defaults = like_llama([](Config& c) { c.norm_eps = 1e-5; }),
                 .sliding = SlidingKeys::all});
  all.push_back({.name = "smollm3",
                 .hf_classes = kSmolLm3Classes,
                 .tensors = kReorderedLlama,
                 .defaults = like_llama([](Config& c) {
                   c.rope.theta = 2e6;
                   c.tied_head = true;
                 }),
                 .sliding = SlidingKeys::switched,
                 .read = read_rope_layers});
  all.push_back({.name = "stablelm",
                 .hf_classes = kStableLmClasses,
                 .tensors = kStableLmTensors,
                 .defaults = layer_norm_defaults(),
                 .rotated_part = 0.25,
                 .read = read_stablelm});
  Config starcoder2 = layer_norm_defaults();
  starcoder2.activation = Activation::gelu_tanh;
  starcoder2.gated = false;
  starcoder2.attention_bias = starcoder2.mlp_bias = true;
  starcoder2.tied_head = true;
  all.push_back({.name = "starcoder2",
                 .hf_classes = kStarcoder2Classes,
                 .tensors = kStarcoder2Tensors,
                 .defaults = starcoder2,
                 .sliding = SlidingKeys::all});
  for (const GgufRow& row : kGguf)
    for (Arch& arch : all)
      if (arch.name == row.name)
        arch.gguf = row.gguf, arch.gguf_keys = row.keys, arch.derive = row.derive, arch.gguf_tokens = row.tokens;
  std::ranges::find(all, "granite", &Arch::name)->gguf_divides_logits = true;
  return all;
}

}  // namespace pare
