// GPT-2 and its kin: layer norms with biases, fused projections, learned, linear or rotary positions.
#include <cmath>

#include "pare/model/families.h"

namespace pare {
namespace {

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

constexpr TensorName row(Role role, std::string_view hf, Bias bias = Bias::none,
                         bool (*present)(const Config&) = nullptr) {
  return {.role = role, .hf = hf, .bias = bias, .present = present};
}

constexpr TensorName kBigCodeTensors[] = {
    row(Role::token_embedding, "transformer.wte"),
    row(Role::position_embedding, "transformer.wpe"),
    row(Role::attn_norm, "transformer.h.{}.ln_1", Bias::always),
    row(Role::qkv, "transformer.h.{}.attn.c_attn", Bias::always),
    row(Role::o, "transformer.h.{}.attn.c_proj", Bias::always),
    row(Role::ffn_norm, "transformer.h.{}.ln_2", Bias::always),
    row(Role::up, "transformer.h.{}.mlp.c_fc", Bias::always),
    row(Role::down, "transformer.h.{}.mlp.c_proj", Bias::always),
    row(Role::final_norm, "transformer.ln_f", Bias::always),
    row(Role::head, "lm_head"),
};
constexpr TensorName kGptNeoTensors[] = {
    row(Role::token_embedding, "transformer.wte"),
    row(Role::position_embedding, "transformer.wpe"),
    row(Role::attn_norm, "transformer.h.{}.ln_1", Bias::always),
    row(Role::q, "transformer.h.{}.attn.attention.q_proj"),
    row(Role::k, "transformer.h.{}.attn.attention.k_proj"),
    row(Role::v, "transformer.h.{}.attn.attention.v_proj"),
    row(Role::o, "transformer.h.{}.attn.attention.out_proj", Bias::always),
    row(Role::ffn_norm, "transformer.h.{}.ln_2", Bias::always),
    row(Role::up, "transformer.h.{}.mlp.c_fc", Bias::always),
    row(Role::down, "transformer.h.{}.mlp.c_proj", Bias::always),
    row(Role::final_norm, "transformer.ln_f", Bias::always),
    row(Role::head, "lm_head"),
};
constexpr TensorName kGptNeoXTensors[] = {
    row(Role::token_embedding, "gpt_neox.embed_in"),
    row(Role::attn_norm, "gpt_neox.layers.{}.input_layernorm", Bias::always),
    row(Role::qkv, "gpt_neox.layers.{}.attention.query_key_value", Bias::attention),
    row(Role::o, "gpt_neox.layers.{}.attention.dense", Bias::attention),
    row(Role::ffn_norm, "gpt_neox.layers.{}.post_attention_layernorm", Bias::always),
    row(Role::up, "gpt_neox.layers.{}.mlp.dense_h_to_4h", Bias::always),
    row(Role::down, "gpt_neox.layers.{}.mlp.dense_4h_to_h", Bias::always),
    row(Role::final_norm, "gpt_neox.final_layer_norm", Bias::always),
    row(Role::head, "embed_out"),
};
constexpr TensorName kGptJTensors[] = {
    row(Role::token_embedding, "transformer.wte"),
    row(Role::attn_norm, "transformer.h.{}.ln_1", Bias::always),
    row(Role::q, "transformer.h.{}.attn.q_proj"),
    row(Role::k, "transformer.h.{}.attn.k_proj"),
    row(Role::v, "transformer.h.{}.attn.v_proj"),
    row(Role::o, "transformer.h.{}.attn.out_proj"),
    row(Role::up, "transformer.h.{}.mlp.fc_in", Bias::always),
    row(Role::down, "transformer.h.{}.mlp.fc_out", Bias::always),
    row(Role::final_norm, "transformer.ln_f", Bias::always),
    row(Role::head, "lm_head", Bias::always),
};
constexpr TensorName kCodeGenTensors[] = {
    row(Role::token_embedding, "transformer.wte"),
    row(Role::attn_norm, "transformer.h.{}.ln_1", Bias::always),
    row(Role::qkv, "transformer.h.{}.attn.qkv_proj"),
    row(Role::o, "transformer.h.{}.attn.out_proj"),
    row(Role::up, "transformer.h.{}.mlp.fc_in", Bias::always),
    row(Role::down, "transformer.h.{}.mlp.fc_out", Bias::always),
    row(Role::final_norm, "transformer.ln_f", Bias::always),
    row(Role::head, "lm_head", Bias::always),
};
constexpr TensorName kBloomTensors[] = {
    row(Role::token_embedding, "transformer.word_embeddings"),
    row(Role::embedding_norm, "transformer.word_embeddings_layernorm", Bias::always),
    row(Role::attn_norm, "transformer.h.{}.input_layernorm", Bias::always),
    row(Role::qkv, "transformer.h.{}.self_attention.query_key_value", Bias::always),
    row(Role::o, "transformer.h.{}.self_attention.dense", Bias::always),
    row(Role::ffn_norm, "transformer.h.{}.post_attention_layernorm", Bias::always),
    row(Role::up, "transformer.h.{}.mlp.dense_h_to_4h", Bias::always),
    row(Role::down, "transformer.h.{}.mlp.dense_4h_to_h", Bias::always),
    row(Role::final_norm, "transformer.ln_f", Bias::always),
    row(Role::head, "lm_head"),
};
constexpr TensorName kMptTensors[] = {
    row(Role::token_embedding, "transformer.wte"),
    row(Role::attn_norm, "transformer.blocks.{}.norm_1"),
    row(Role::qkv, "transformer.blocks.{}.attn.Wqkv"),
    row(Role::o, "transformer.blocks.{}.attn.out_proj"),
    row(Role::ffn_norm, "transformer.blocks.{}.norm_2"),
    row(Role::up, "transformer.blocks.{}.ffn.up_proj"),
    row(Role::down, "transformer.blocks.{}.ffn.down_proj"),
    row(Role::final_norm, "transformer.norm_f"),
    row(Role::head, "lm_head"),
};

// Falcon's blocks have one norm, or two under other names when both halves read the block's input.
bool two_parallel_norms(const Config& c) { return c.parallel && !c.shared_norm; }
constexpr TensorName kFalconTensors[] = {
    row(Role::token_embedding, "transformer.word_embeddings"),
    row(Role::attn_norm, "transformer.h.{}.ln_attn", Bias::always, two_parallel_norms),
    row(Role::attn_norm, "transformer.h.{}.input_layernorm", Bias::always,
        [](const Config& c) { return !two_parallel_norms(c); }),
    row(Role::qkv, "transformer.h.{}.self_attention.query_key_value", Bias::attention),
    row(Role::o, "transformer.h.{}.self_attention.dense", Bias::attention),
    row(Role::ffn_norm, "transformer.h.{}.ln_mlp", Bias::always, two_parallel_norms),
    row(Role::ffn_norm, "transformer.h.{}.post_attention_layernorm", Bias::always,
        [](const Config& c) { return !c.parallel; }),
    row(Role::up, "transformer.h.{}.mlp.dense_h_to_4h", Bias::mlp),
    row(Role::down, "transformer.h.{}.mlp.dense_4h_to_h", Bias::mlp),
    row(Role::final_norm, "transformer.ln_f", Bias::always),
    row(Role::head, "lm_head"),
};

constexpr std::string_view kOptClasses[] = {"OPTForCausalLM"}, kGpt2Classes[] = {"GPT2LMHeadModel"},
                           kBigCodeClasses[] = {"GPTBigCodeForCausalLM"}, kGptNeoClasses[] = {"GPTNeoForCausalLM"},
                           kGptNeoXClasses[] = {"GPTNeoXForCausalLM"}, kGptJClasses[] = {"GPTJForCausalLM"},
                           kCodeGenClasses[] = {"CodeGenForCausalLM"}, kBloomClasses[] = {"BloomForCausalLM"},
                           kMptClasses[] = {"MptForCausalLM", "MPTForCausalLM"},
                           kFalconClasses[] = {"FalconForCausalLM", "RWForCausalLM"};

// ---- what config.json of one family has and others' has not

void read_big_code(const ConfigKeys& keys, Config& c) {
  const bool one = keys.boolean({"multi_query"}).value_or(true);
  c.kv_heads = one ? 1 : c.heads;
  c.qkv = one ? QkvLayout::parts : QkvLayout::by_head;
}

// "attention_layers" lists global and local ones; without it "attention_types" lists a pattern and how often it comes.
void read_gpt_neo(const ConfigKeys& keys, Config& c) {
  c.sliding_window = keys.integer({"window_size"}).value_or(256);
  Json layers = Json::array();
  if (const Json* named = keys.find("attention_layers")) {
    layers = *named;
  } else if (const Json* types = keys.find("attention_types"); types && types->is_array()) {
    for (const Json& type : *types) {
      if (!type.is_array() || type.size() != 2 || !type[0].is_array() || !type[1].is_number_integer())
        keys.refuse("attention_types", "pairs of a pattern and a count", *types);
      for (int64_t i = 0; i < type[1].get<int64_t>() && std::ssize(layers) <= c.layers; ++i)
        layers.insert(layers.end(), type[0].begin(), type[0].end());
    }
  }
  if (!layers.is_array() || std::ssize(layers) != c.layers)
    keys.refuse("attention_layers", "one entry per layer", layers);
  for (const Json& layer : layers) c.sliding_layers.push_back(layer == "local");
}

void read_gpt_neox(const ConfigKeys& keys, Config& c) {
  c.parallel = keys.boolean({"use_parallel_residual"}).value_or(true);
}

void read_bloom(const ConfigKeys& keys, Config& c) {
  c.residual_norm = keys.boolean({"apply_residual_connection_post_layernorm"}).value_or(false);
}

void read_mpt(const ConfigKeys& keys, Config& c) {
  const auto attention = keys.object("attn_config");
  if (!attention) return;
  if (!attention->boolean({"alibi"}).value_or(true))
    attention->refuse("alibi", "true (learned positions are not supported in this family)", Json(false));
  if (attention->boolean({"qk_ln"}).value_or(false)) attention->refuse("qk_ln", "false", Json(true));
  if (const auto bias = attention->number({"alibi_bias_max"}); bias && *bias != 8)
    attention->refuse("alibi_bias_max", "8", Json(*bias));
  c.qkv_clip = static_cast<float>(attention->number({"clip_qkv"}).value_or(0));
  c.attention_scale = static_cast<float>(attention->number({"softmax_scale"}).value_or(0));
}

void read_falcon(const ConfigKeys& keys, Config& c) {
  const bool grouped = keys.boolean({"new_decoder_architecture"}).value_or(false);
  const bool one = keys.boolean({"multi_query"}).value_or(true);
  c.kv_heads = grouped ? keys.integer({"num_kv_heads", "n_head_kv"}).value_or(c.heads) : one ? 1 : c.heads;
  c.qkv = grouped ? QkvLayout::by_kv_head : one ? QkvLayout::parts : QkvLayout::by_head;
  c.parallel = grouped || keys.boolean({"parallel_attn"}).value_or(true);
  c.shared_norm = c.parallel && !(grouped && keys.integer({"num_ln_in_parallel_attn"}).value_or(2) == 2);
  if (!keys.boolean({"alibi"}).value_or(false)) return;
  c.position = PositionKind::alibi;
  c.alibi_bf16 = true;
  // Twice: transformers' eager attention, the reference here, adds the biases to the scores and to the mask.
  c.alibi_scale = 2 / std::sqrt(static_cast<float>(c.head_dim));
}

// ---- defaults

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
template <class Change>
Config like_gpt2(Change&& change) {
  Config c = gpt2_defaults();
  change(c);
  return c;
}
Config gpt_j_defaults() {
  return like_gpt2([](Config& c) {
    c.position = PositionKind::rope;
    c.rope.interleaved = true;
    c.rope.dims = 64;
    c.parallel = c.shared_norm = true;
    c.tied_head = false;
  });
}

}  // namespace

std::vector<Arch> gpt_family() {
  std::vector<Arch> all = {
      {"opt", kOptClasses, "", kOptTensors, opt_defaults()},
      {"gpt2", kGpt2Classes, "gpt2", kGpt2Tensors, gpt2_defaults(), "transformer."},
  };
  all.push_back({.name = "gpt_bigcode",
                 .hf_classes = kBigCodeClasses,
                 .tensors = kBigCodeTensors,
                 .defaults = gpt2_defaults(),
                 .base_prefix = "transformer.",
                 .read = read_big_code});
  all.push_back({.name = "gpt_neo",
                 .hf_classes = kGptNeoClasses,
                 .tensors = kGptNeoTensors,
                 .defaults = like_gpt2([](Config& c) { c.attention_scale = 1; }),
                 .base_prefix = "transformer.",
                 .read = read_gpt_neo});
  all.push_back({.name = "gpt_neox",
                 .hf_classes = kGptNeoXClasses,
                 .tensors = kGptNeoXTensors,
                 .defaults = like_gpt2([](Config& c) {
                   c.position = PositionKind::rope;
                   c.qkv = QkvLayout::by_head;
                   c.activation = Activation::gelu;
                   c.attention_bias = true;
                   c.tied_head = false;
                 }),
                 .base_prefix = "gpt_neox.",
                 .rotated_part = 0.25,
                 .read = read_gpt_neox});
  all.push_back({.name = "gptj",
                 .hf_classes = kGptJClasses,
                 .tensors = kGptJTensors,
                 .defaults = gpt_j_defaults(),
                 .base_prefix = "transformer."});
  Config codegen = gpt_j_defaults();
  codegen.qkv = QkvLayout::four_shards;
  all.push_back({.name = "codegen",
                 .hf_classes = kCodeGenClasses,
                 .tensors = kCodeGenTensors,
                 .defaults = codegen,
                 .base_prefix = "transformer."});
  all.push_back({.name = "bloom",
                 .hf_classes = kBloomClasses,
                 .tensors = kBloomTensors,
                 .defaults = like_gpt2([](Config& c) {
                   c.position = PositionKind::alibi;
                   c.qkv = QkvLayout::by_head;
                   c.embedding_norm = true;
                   c.context = 2048;  // config.json has none
                 }),
                 .base_prefix = "transformer.",
                 .read = read_bloom});
  all.push_back({.name = "mpt",
                 .hf_classes = kMptClasses,
                 .tensors = kMptTensors,
                 .defaults = like_gpt2([](Config& c) {
                   c.position = PositionKind::alibi;
                   c.activation = Activation::gelu;
                   c.context = 2048;
                 }),
                 .base_prefix = "transformer.",
                 .read = read_mpt});
  all.push_back({.name = "falcon",
                 .hf_classes = kFalconClasses,
                 .tensors = kFalconTensors,
                 .defaults = like_gpt2([](Config& c) {
                   c.position = PositionKind::rope;
                   c.activation = Activation::gelu;
                   c.context = 2048;
                 }),
                 .base_prefix = "transformer.",
                 .read = read_falcon});
  return all;
}

}  // namespace pare
