// Decoders with experts, and those with latent attention.
#include <cmath>

#include "pare/model/families.h"

namespace pare {
namespace {

constexpr TensorName row(Role role, std::string_view hf, Bias bias = Bias::none) {
  return {.role = role, .hf = hf, .bias = bias};
}
constexpr TensorName bare(Role role, std::string_view hf) { return {.role = role, .hf = hf, .bare = true}; }

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
                     kDown = row(Role::down, "model.layers.{}.mlp.down_proj", Bias::mlp),
                     kRouter = row(Role::router, "model.layers.{}.mlp.gate"),
                     kCorrection = bare(Role::router_correction, "model.layers.{}.mlp.gate.e_score_correction_bias"),
                     kExpertGate = row(Role::expert_gate, "model.layers.{}.mlp.experts.{expert}.gate_proj"),
                     kExpertUp = row(Role::expert_up, "model.layers.{}.mlp.experts.{expert}.up_proj"),
                     kExpertDown = row(Role::expert_down, "model.layers.{}.mlp.experts.{expert}.down_proj"),
                     kSharedGate = row(Role::shared_gate, "model.layers.{}.mlp.shared_experts.gate_proj"),
                     kSharedUp = row(Role::shared_up, "model.layers.{}.mlp.shared_experts.up_proj"),
                     kSharedDown = row(Role::shared_down, "model.layers.{}.mlp.shared_experts.down_proj"),
                     kFinalNorm = row(Role::final_norm, "model.norm"), kHead = row(Role::head, "lm_head");

// Mixtral's names of experts.
constexpr TensorName kSparseRouter = row(Role::router, "model.layers.{}.block_sparse_moe.gate"),
                     kSparseGate = row(Role::expert_gate, "model.layers.{}.block_sparse_moe.experts.{expert}.w1"),
                     kSparseUp = row(Role::expert_up, "model.layers.{}.block_sparse_moe.experts.{expert}.w3"),
                     kSparseDown = row(Role::expert_down, "model.layers.{}.block_sparse_moe.experts.{expert}.w2");

constexpr TensorName kMixtralTensors[] = {kEmbedding, kAttnNorm,     kQ,          kK,        kV,          kO,
                                          kFfnNorm,   kSparseRouter, kSparseGate, kSparseUp, kSparseDown, kFinalNorm,
                                          kHead};
constexpr TensorName kPhiMoeTensors[] = {kEmbedding,
                                         row(Role::attn_norm, "model.layers.{}.input_layernorm", Bias::always),
                                         kQ,
                                         kK,
                                         kV,
                                         kO,
                                         row(Role::ffn_norm, "model.layers.{}.post_attention_layernorm", Bias::always),
                                         kSparseRouter,
                                         kSparseGate,
                                         kSparseUp,
                                         kSparseDown,
                                         row(Role::final_norm, "model.norm", Bias::always),
                                         row(Role::head, "lm_head", Bias::head)};
constexpr TensorName kQwen2MoeTensors[] = {kEmbedding,
                                           kAttnNorm,
                                           kQ,
                                           kK,
                                           kV,
                                           kPlainO,
                                           kFfnNorm,
                                           kGate,
                                           kUp,
                                           kDown,
                                           kRouter,
                                           kExpertGate,
                                           kExpertUp,
                                           kExpertDown,
                                           row(Role::shared_router, "model.layers.{}.mlp.shared_expert_gate"),
                                           row(Role::shared_gate, "model.layers.{}.mlp.shared_expert.gate_proj"),
                                           row(Role::shared_up, "model.layers.{}.mlp.shared_expert.up_proj"),
                                           row(Role::shared_down, "model.layers.{}.mlp.shared_expert.down_proj"),
                                           kFinalNorm,
                                           kHead};
// Norms of q and k, experts, sometimes others that every token takes.
constexpr TensorName kMoeTensors[] = {kEmbedding, kAttnNorm,   kQ,          kK,        kV,          kO,
                                      kQNorm,     kKNorm,      kFfnNorm,    kGate,     kUp,         kDown,
                                      kRouter,    kCorrection, kExpertGate, kExpertUp, kExpertDown, kSharedGate,
                                      kSharedUp,  kSharedDown, kFinalNorm,  kHead};
constexpr TensorName kErnieTensors[] = {
    kEmbedding,  kAttnNorm, kQ,
    kK,          kV,        kO,
    kFfnNorm,    kGate,     kUp,
    kDown,       kRouter,   bare(Role::router_correction, "model.layers.{}.mlp.moe_statics.e_score_correction_bias"),
    kExpertGate, kExpertUp, kExpertDown,
    kSharedGate, kSharedUp, kSharedDown,
    kFinalNorm,  kHead};
constexpr TensorName kGlmMoeTensors[] = {kEmbedding, kAttnNorm,   kQ,          kK,        kV,          kPlainO,
                                         kQNorm,     kKNorm,      kFfnNorm,    kGate,     kUp,         kDown,
                                         kRouter,    kCorrection, kExpertGate, kExpertUp, kExpertDown, kSharedGate,
                                         kSharedUp,  kSharedDown, kFinalNorm,  kHead};
constexpr TensorName kLatentTensors[] = {
    kEmbedding,
    kAttnNorm,
    row(Role::q, "model.layers.{}.self_attn.q_proj"),
    row(Role::q_a, "model.layers.{}.self_attn.q_a_proj", Bias::attention),
    row(Role::q_a_norm, "model.layers.{}.self_attn.q_a_layernorm"),
    row(Role::q_b, "model.layers.{}.self_attn.q_b_proj"),
    row(Role::kv_a, "model.layers.{}.self_attn.kv_a_proj_with_mqa", Bias::attention),
    row(Role::kv_a_norm, "model.layers.{}.self_attn.kv_a_layernorm"),
    row(Role::kv_b, "model.layers.{}.self_attn.kv_b_proj"),
    kO,
    kFfnNorm,
    kGate,
    kUp,
    kDown,
    kRouter,
    kCorrection,
    kExpertGate,
    kExpertUp,
    kExpertDown,
    kSharedGate,
    kSharedUp,
    kSharedDown,
    kFinalNorm,
    kHead};

// ---- experts in one tensor

constexpr TensorName stack(Role role, std::string_view hf, bool bare_name, bool transposed,
                           std::string_view bias = {}) {
  return {.role = role, .hf = hf, .transposed = transposed, .bare = bare_name, .stacked = true, .stacked_bias = bias};
}

constexpr TensorName kGraniteMoeTensors[] = {
    kEmbedding,
    kAttnNorm,
    kQ,
    kK,
    kV,
    kO,
    kFfnNorm,
    row(Role::router, "model.layers.{}.block_sparse_moe.router.layer"),
    stack(Role::expert_gate_up, "model.layers.{}.block_sparse_moe.input_linear", false, false),
    stack(Role::expert_down, "model.layers.{}.block_sparse_moe.output_linear", false, false),
    kFinalNorm,
    kHead};
constexpr TensorName kDbrxTensors[] = {
    row(Role::token_embedding, "transformer.wte"),
    row(Role::attn_norm, "transformer.blocks.{}.norm_attn_norm.norm_1"),
    row(Role::qkv, "transformer.blocks.{}.norm_attn_norm.attn.Wqkv"),
    row(Role::o, "transformer.blocks.{}.norm_attn_norm.attn.out_proj"),
    row(Role::ffn_norm, "transformer.blocks.{}.norm_attn_norm.norm_2"),
    row(Role::router, "transformer.blocks.{}.ffn.router.layer"),
    stack(Role::expert_gate, "transformer.blocks.{}.ffn.experts.mlp.w1", true, false),
    stack(Role::expert_up, "transformer.blocks.{}.ffn.experts.mlp.v1", true, false),
    stack(Role::expert_down, "transformer.blocks.{}.ffn.experts.mlp.w2", true, true),
    row(Role::final_norm, "transformer.norm_f"),
    row(Role::head, "lm_head"),
};
constexpr TensorName kLlama4Tensors[] = {
    kEmbedding,
    kAttnNorm,
    kQ,
    kK,
    kV,
    kO,
    kFfnNorm,
    row(Role::gate, "model.layers.{}.feed_forward.gate_proj"),
    row(Role::up, "model.layers.{}.feed_forward.up_proj"),
    row(Role::down, "model.layers.{}.feed_forward.down_proj"),
    row(Role::router, "model.layers.{}.feed_forward.router"),
    stack(Role::expert_gate_up, "model.layers.{}.feed_forward.experts.gate_up_proj", true, true),
    stack(Role::expert_down, "model.layers.{}.feed_forward.experts.down_proj", true, true),
    row(Role::shared_gate, "model.layers.{}.feed_forward.shared_expert.gate_proj"),
    row(Role::shared_up, "model.layers.{}.feed_forward.shared_expert.up_proj"),
    row(Role::shared_down, "model.layers.{}.feed_forward.shared_expert.down_proj"),
    kFinalNorm,
    kHead};
constexpr TensorName kGptOssTensors[] = {kEmbedding,
                                         kAttnNorm,
                                         kQ,
                                         kK,
                                         kV,
                                         kO,
                                         bare(Role::sinks, "model.layers.{}.self_attn.sinks"),
                                         kFfnNorm,
                                         row(Role::router, "model.layers.{}.mlp.router", Bias::always),
                                         stack(Role::expert_gate_up, "model.layers.{}.mlp.experts.gate_up_proj", true,
                                               true, "model.layers.{}.mlp.experts.gate_up_proj_bias"),
                                         stack(Role::expert_down, "model.layers.{}.mlp.experts.down_proj", true, true,
                                               "model.layers.{}.mlp.experts.down_proj_bias"),
                                         kFinalNorm,
                                         kHead};
constexpr std::string_view kGraniteMoeClasses[] = {"GraniteMoeForCausalLM"}, kDbrxClasses[] = {"DbrxForCausalLM"},
                           kLlama4Classes[] = {"Llama4ForCausalLM"}, kGptOssClasses[] = {"GptOssForCausalLM"};

constexpr std::string_view kMixtralClasses[] = {"MixtralForCausalLM"},
                           kPhiMoeClasses[] = {"PhimoeForCausalLM", "PhiMoEForCausalLM"},
                           kQwen2MoeClasses[] = {"Qwen2MoeForCausalLM"}, kQwen3MoeClasses[] = {"Qwen3MoeForCausalLM"},
                           kOlmoeClasses[] = {"OlmoeForCausalLM"}, kErnieClasses[] = {"Ernie4_5_MoeForCausalLM"},
                           kGlmMoeClasses[] = {"Glm4MoeForCausalLM"}, kDeepSeek2Classes[] = {"DeepseekV2ForCausalLM"},
                           kDeepSeek3Classes[] = {"DeepseekV3ForCausalLM"},
                           kMiniCpm3Classes[] = {"MiniCPM3ForCausalLM"};

// ---- what config.json says of experts

constexpr int64_t kMostExperts = 4096;

void check_counts(const ConfigKeys& keys, const Moe& moe) {
  if (moe.experts < 1 || moe.experts > kMostExperts)
    keys.refuse("num_experts", fmt::format("1 to {}", kMostExperts), Json(moe.experts));
  if (moe.per_token < 1 || moe.per_token > moe.experts)
    keys.refuse("num_experts_per_tok", fmt::format("1 to {}", moe.experts), Json(moe.per_token));
}

Moe need_moe(const ConfigKeys& keys, const Config& c) {
  Moe moe;
  moe.experts = keys.need_integer({"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"});
  moe.per_token = keys.need_integer({"num_experts_per_tok", "moe_k"});
  moe.ffn = keys.integer({"moe_intermediate_size"}).value_or(c.ffn);
  moe.normalized = keys.boolean({"norm_topk_prob"}).value_or(false);
  moe.scale = static_cast<float>(keys.number({"routed_scaling_factor"}).value_or(1));
  check_counts(keys, moe);
  return moe;
}

template <class Has>
void choose_layers(const Config& c, Moe& moe, Has&& has) {
  for (int64_t i = 0; i < std::min<int64_t>(c.layers, 10'000); ++i) moe.layers.push_back(has(i));
}

void read_groups(const ConfigKeys& keys, Moe& moe) {
  moe.groups = keys.integer({"n_group"}).value_or(1);
  moe.groups_kept = keys.integer({"topk_group"}).value_or(1);
  if (moe.groups < 1 || moe.experts % moe.groups != 0)
    keys.refuse("n_group", fmt::format("a divisor of {}", moe.experts), Json(moe.groups));
  if (moe.groups_kept < 1 || moe.groups_kept > moe.groups ||
      moe.groups_kept * (moe.experts / moe.groups) < moe.per_token)
    keys.refuse("topk_group", "enough groups for the experts of a token", Json(moe.groups_kept));
}

void read_shared(const ConfigKeys& keys, const char* key, Moe& moe) {
  const int64_t shared = keys.integer({key}).value_or(0);
  if (shared < 0 || shared > kMostExperts) keys.refuse(key, fmt::format("0 to {}", kMostExperts), Json(shared));
  moe.shared_ffn = shared * moe.ffn;
}

void read_mixtral(const ConfigKeys& keys, Config& c) {
  c.moe = need_moe(keys, c);
  c.moe->normalized = true;
}

void read_phimoe(const ConfigKeys& keys, Config& c) {
  c.moe = need_moe(keys, c);
  c.moe->score = Moe::Score::sparse_mixer;
  c.moe->near = static_cast<float>(2 * keys.number({"router_jitter_noise"}).value_or(0.01));
  c.head_bias = keys.boolean({"lm_head_bias"}).value_or(false);
}

void read_qwen_moe(const ConfigKeys& keys, Config& c) {
  Moe moe = need_moe(keys, c);
  const int64_t every = keys.integer({"decoder_sparse_step"}).value_or(1);
  if (every < 1) keys.refuse("decoder_sparse_step", "at least 1", Json(every));
  const Json* dense = keys.find("mlp_only_layers");
  if (dense && !dense->is_array()) keys.refuse("mlp_only_layers", "a list of layers", *dense);
  choose_layers(c, moe, [&](int64_t i) {
    const bool listed = dense && std::find(dense->begin(), dense->end(), Json(i)) != dense->end();
    return !listed && (i + 1) % every == 0;
  });
  moe.shared_ffn = keys.integer({"shared_expert_intermediate_size"}).value_or(0);
  moe.shared_gate = moe.shared_ffn > 0;
  c.moe = moe;
  c.attention_bias = keys.boolean({"qkv_bias"}).value_or(c.attention_bias);
}

void read_olmoe(const ConfigKeys& keys, Config& c) {
  c.moe = need_moe(keys, c);
  c.qkv_clip = static_cast<float>(keys.number({"clip_qkv"}).value_or(0));
}

void read_ernie(const ConfigKeys& keys, Config& c) {
  Moe moe = need_moe(keys, c);
  moe.corrected = moe.normalized = true;
  moe.smallest_sum = static_cast<float>(keys.number({"moe_norm_min"}).value_or(1e-12));
  read_shared(keys, "moe_num_shared_experts", moe);
  const int64_t every = keys.integer({"moe_layer_interval"}).value_or(1);
  const int64_t first = keys.integer({"moe_layer_start_index"}).value_or(1);
  const int64_t end = keys.integer({"moe_layer_end_index"}).value_or(-1);
  if (every < 1) keys.refuse("moe_layer_interval", "at least 1", Json(every));
  choose_layers(c, moe,
                [&](int64_t i) { return (i + 1) % every == 0 && i >= first && i <= (end == -1 ? c.layers - 1 : end); });
  c.moe = moe;
}

// Sigmoid scores with a correction, chosen by groups, after some dense layers.
void read_corrected(const ConfigKeys& keys, Config& c) {
  Moe moe = need_moe(keys, c);
  moe.score = Moe::Score::sigmoid;
  moe.corrected = true;
  moe.normalized = keys.boolean({"norm_topk_prob"}).value_or(true);
  read_groups(keys, moe);
  read_shared(keys, "n_shared_experts", moe);
  const int64_t dense = keys.integer({"first_k_dense_replace"}).value_or(0);
  choose_layers(c, moe, [&](int64_t i) { return i >= dense; });
  c.moe = moe;
}

void read_glm_moe(const ConfigKeys& keys, Config& c) {
  read_corrected(keys, c);
  if (keys.boolean({"use_qk_norm"}).value_or(false)) c.qk_norm = QkNorm::head;
}

void read_latent(const ConfigKeys& keys, Config& c) {
  LatentAttention a;
  a.q_rank = keys.integer({"q_lora_rank"}).value_or(0);
  a.kv_rank = keys.need_integer({"kv_lora_rank"});
  a.plain = keys.need_integer({"qk_nope_head_dim"});
  a.rotated = keys.need_integer({"qk_rope_head_dim"});
  a.value = keys.need_integer({"v_head_dim"});
  constexpr int64_t kMost = 1 << 20;
  for (const int64_t n : {a.kv_rank, a.plain, a.rotated, a.value})
    if (n < 1 || n > kMost) keys.refuse("kv_lora_rank and head sizes", fmt::format("1 to {}", kMost), Json(n));
  if (a.q_rank < 0 || a.q_rank > kMost) keys.refuse("q_lora_rank", fmt::format("0 to {}", kMost), Json(a.q_rank));
  c.latent = a;
  c.head_dim = a.plain + a.rotated;
  c.kv_heads = c.heads;
  c.rope.dims = a.rotated;
}

void read_deepseek2(const ConfigKeys& keys, Config& c) {
  read_latent(keys, c);
  Moe moe = need_moe(keys, c);
  const std::string method = keys.text({"topk_method"}).value_or("greedy");
  if (method == "group_limited_greedy")
    read_groups(keys, moe);
  else if (method != "greedy")
    keys.refuse("topk_method", "greedy or group_limited_greedy", Json(method));
  read_shared(keys, "n_shared_experts", moe);
  const int64_t dense = keys.integer({"first_k_dense_replace"}).value_or(0);
  choose_layers(c, moe, [&](int64_t i) { return i >= dense; });
  c.moe = moe;
}

void read_deepseek3(const ConfigKeys& keys, Config& c) {
  read_latent(keys, c);
  read_corrected(keys, c);
  c.rope.interleaved = keys.boolean({"rope_interleave"}).value_or(true);
}

void read_minicpm3(const ConfigKeys& keys, Config& c) {
  read_latent(keys, c);
  c.embedding_scale = static_cast<float>(keys.number({"scale_emb"}).value_or(1));
  if (const auto depth = keys.number({"scale_depth"}); depth && c.layers > 0)
    c.residual_scale = static_cast<float>(*depth / std::sqrt(static_cast<double>(c.layers)));
  if (const auto base = keys.integer({"dim_model_base"}); base && c.hidden > 0)
    c.logit_scale = static_cast<float>(*base) / static_cast<float>(c.hidden);
}

void read_granite_moe(const ConfigKeys& keys, Config& c) {
  read_granite(keys, c);
  c.moe = need_moe(keys, c);
  c.moe->score = Moe::Score::chosen_softmax;
}

void read_dbrx(const ConfigKeys& keys, Config& c) {
  const auto attention = keys.object("attn_config"), ffn = keys.object("ffn_config");
  if (!attention || !ffn) keys.refuse("attn_config and ffn_config", "two objects", Json());
  c.kv_heads = attention->integer({"kv_n_heads"}).value_or(c.kv_heads);
  c.qkv_clip = static_cast<float>(attention->number({"clip_qkv"}).value_or(0));
  c.rope.theta = attention->number({"rope_theta"}).value_or(c.rope.theta);
  Moe moe;
  moe.experts = ffn->need_integer({"moe_num_experts"});
  moe.per_token = ffn->need_integer({"moe_top_k"});
  moe.ffn = ffn->need_integer({"ffn_hidden_size"});
  check_counts(*ffn, moe);
  const Json* norm = ffn->find("moe_normalize_expert_weights");
  if (norm && *norm != 1) ffn->refuse("moe_normalize_expert_weights", "1 or null", *norm);
  moe.normalized = norm != nullptr;
  c.moe = moe;
}

void read_llama4(const ConfigKeys& keys, Config& c) {
  Moe moe = need_moe(keys, c);
  moe.ffn = moe.shared_ffn = c.ffn;
  c.ffn = keys.integer({"intermediate_size_mlp"}).value_or(c.ffn);
  moe.score = Moe::Score::sigmoid;
  moe.weighs_input = true;
  const int64_t every = keys.integer({"interleave_moe_layer_step"}).value_or(1);
  if (every < 1) keys.refuse("interleave_moe_layer_step", "at least 1", Json(every));
  const Json* listed = keys.find("moe_layers");
  choose_layers(c, moe, [&](int64_t i) {
    if (listed && listed->is_array()) return std::find(listed->begin(), listed->end(), Json(i)) != listed->end();
    return (i + 1) % every == 0;
  });
  c.moe = moe;
  read_rope_layers(keys, c);
  c.rotated_norm = keys.boolean({"use_qk_norm"}).value_or(true);
  c.attention_chunk = keys.integer({"attention_chunk_size"}).value_or(8192);
  if (c.attention_chunk < 1) keys.refuse("attention_chunk_size", "at least 1", Json(c.attention_chunk));
  if (keys.boolean({"attn_temperature_tuning"}).value_or(true))
    c.temperature = Temperature{static_cast<float>(keys.number({"floor_scale"}).value_or(8192)),
                                static_cast<float>(keys.number({"attn_scale"}).value_or(0.1))};
}

void read_gpt_oss(const ConfigKeys& keys, Config& c) {
  c.moe = need_moe(keys, c);
  c.moe->score = Moe::Score::chosen_softmax;
  c.clamped_gate = ClampedGate{static_cast<float>(keys.number({"swiglu_alpha"}).value_or(1.702)),
                               static_cast<float>(keys.number({"swiglu_limit"}).value_or(7))};
}

// ---- defaults

template <class Change>
Config like_llama(Change&& change) {
  Config c;
  c.norm_eps = 1e-6;
  change(c);
  return c;
}

}  // namespace

std::vector<Arch> moe_family() {
  std::vector<Arch> all;
  all.push_back({.name = "mixtral",
                 .hf_classes = kMixtralClasses,
                 .tensors = kMixtralTensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm_eps = 1e-5;
                   c.rope.theta = 1e6;
                 }),
                 .sliding = SlidingKeys::all,
                 .read = read_mixtral});
  all.push_back({.name = "phimoe",
                 .hf_classes = kPhiMoeClasses,
                 .tensors = kPhiMoeTensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm = NormKind::layer;
                   c.norm_eps = 1e-5;
                   c.rope.theta = 1e6;
                 }),
                 .sliding = SlidingKeys::all,
                 .read = read_phimoe});
  all.push_back({.name = "qwen2_moe",
                 .hf_classes = kQwen2MoeClasses,
                 .tensors = kQwen2MoeTensors,
                 .defaults = like_llama([](Config& c) { c.attention_bias = true; }),
                 .sliding = SlidingKeys::switched,
                 .read = read_qwen_moe});
  all.push_back({.name = "qwen3_moe",
                 .hf_classes = kQwen3MoeClasses,
                 .tensors = kMoeTensors,
                 .defaults = like_llama([](Config& c) { c.qk_norm = QkNorm::head; }),
                 .sliding = SlidingKeys::switched,
                 .read = read_qwen_moe});
  all.push_back({.name = "olmoe",
                 .hf_classes = kOlmoeClasses,
                 .tensors = kMoeTensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm_eps = 1e-5;
                   c.qk_norm = QkNorm::whole;
                 }),
                 .read = read_olmoe});
  all.push_back({.name = "ernie4_5_moe",
                 .hf_classes = kErnieClasses,
                 .tensors = kErnieTensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm_eps = 1e-5;
                   c.rope.theta = 500000;
                   c.rope.interleaved = true;
                   c.tied_head = true;
                 }),
                 .read = read_ernie});
  all.push_back({.name = "glm4_moe",
                 .hf_classes = kGlmMoeClasses,
                 .tensors = kGlmMoeTensors,
                 .defaults = like_llama([](Config& c) { c.norm_eps = 1e-5; }),
                 .rotated_part = 0.5,
                 .read = read_glm_moe});
  const Config latent = like_llama([](Config& c) { c.rope.interleaved = true; });
  all.push_back({.name = "deepseek_v2",
                 .hf_classes = kDeepSeek2Classes,
                 .tensors = kLatentTensors,
                 .defaults = latent,
                 .read = read_deepseek2});
  all.push_back({.name = "deepseek_v3",
                 .hf_classes = kDeepSeek3Classes,
                 .tensors = kLatentTensors,
                 .defaults = latent,
                 .read = read_deepseek3});
  all.push_back({.name = "minicpm3",
                 .hf_classes = kMiniCpm3Classes,
                 .tensors = kLatentTensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm_eps = 1e-5;
                   c.tied_head = true;
                 }),
                 .read = read_minicpm3});
  all.push_back({.name = "granitemoe",
                 .hf_classes = kGraniteMoeClasses,
                 .tensors = kGraniteMoeTensors,
                 .defaults = like_llama([](Config&) {}),
                 .read = read_granite_moe});
  all.push_back({.name = "dbrx",
                 .hf_classes = kDbrxClasses,
                 .tensors = kDbrxTensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm = NormKind::layer;
                   c.norm_eps = 1e-5;
                   c.ffn = 1;  // all its feed-forwards are experts
                 }),
                 .base_prefix = "transformer.",
                 .read = read_dbrx});
  all.push_back({.name = "llama4_text",
                 .hf_classes = kLlama4Classes,
                 .tensors = kLlama4Tensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm_eps = 1e-5;
                   c.rope.theta = 500000;
                   c.rope.interleaved = true;
                 }),
                 .read = read_llama4});
  all.push_back({.name = "gpt_oss",
                 .hf_classes = kGptOssClasses,
                 .tensors = kGptOssTensors,
                 .defaults = like_llama([](Config& c) {
                   c.norm_eps = 1e-5;
                   c.rope.theta = 150000;
                   c.head_dim = 64;
                   c.attention_bias = true;
                   c.sliding_window = 128;
                   c.sinks = true;
                 }),
                 .sliding = SlidingKeys::pattern,
                 .sliding_pattern = 2,
                 .read = read_gpt_oss});
  return all;
}

}  // namespace pare
