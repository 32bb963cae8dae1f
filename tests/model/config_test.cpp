// Reading of configurations, and every way in which they can lie.
#include "tests/model/models.h"

namespace pare::test {
namespace {

class ConfigTest : public testing::Test {
 protected:
  Config read(const TinyModel& model) {
    TemporaryDirectory dir;
    return read_config(*stored(model, dir.path()));
  }
  ErrorInfo refusal(const TinyModel& model) {
    TemporaryDirectory dir;
    const auto checkpoint = stored(model, dir.path());
    return error_of([&] { read_config(*checkpoint); });
  }
  TinyModel with(const char* key, Json value) {
    TinyModel model = llama_like({});
    model.config[key] = std::move(value);
    return model;
  }
};

TEST_F(ConfigTest, BothSpellingsMeanTheSame) {
  TinyModel v4 = llama_like({}), v5 = v4;
  v4.config["rope_scaling"] = {{"rope_type", "llama3"},
                               {"factor", 8.0},
                               {"low_freq_factor", 2.0},
                               {"high_freq_factor", 5.0},
                               {"original_max_position_embeddings", 16}};
  v5.config.erase("torch_dtype");
  v5.config["dtype"] = "float32";
  v5.config.erase("rope_theta");
  v5.config["rope_parameters"] = v4.config["rope_scaling"];
  v5.config["rope_parameters"]["rope_theta"] = 10000.0;
  for (const TinyModel& model : {v4, v5}) {
    const Config c = read(model);
    EXPECT_EQ(c.rope.kind, Rope::Kind::llama3);
    EXPECT_EQ(c.rope.theta, 10000);
    EXPECT_EQ(c.rope.factor, 8);
    EXPECT_EQ(c.rope.low_freq_factor, 2);
    EXPECT_EQ(c.rope.high_freq_factor, 5);
    EXPECT_EQ(c.rope.original_context, 16);
    EXPECT_EQ(c.dtype, "float32");
  }
  v4.config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};  // the oldest spelling
  EXPECT_EQ(read(v4).rope.kind, Rope::Kind::linear);
  v4.config["rope_scaling"] = nullptr;
  EXPECT_EQ(read(v4).rope.kind, Rope::Kind::plain);
}

TEST_F(ConfigTest, SizesAndFlags) {
  LlamaOptions o;
  o.attention_bias = true;
  const Config c = read(llama_like(o));
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.hf_class, "LlamaForCausalLM");
  EXPECT_EQ(c.layers, 2);
  EXPECT_EQ(c.ffn, 48);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.rope.dims, 8);
  EXPECT_TRUE(c.attention_bias);
  EXPECT_FALSE(c.mlp_bias);
  EXPECT_FALSE(c.tied_head);
  EXPECT_EQ(c.bos, 1);
  EXPECT_EQ(c.eos, 2);
}

TEST_F(ConfigTest, SeveralEndTokens) {
  const Config c = read(with("eos_token_id", {7, 9}));
  EXPECT_EQ(c.eos, 7);
  EXPECT_EQ(c.eos_ids, (std::vector<int32_t>{7, 9}));
  EXPECT_FALSE(read(with("eos_token_id", nullptr)).eos.has_value());
}

TEST_F(ConfigTest, WhatIsMissingIsWhatTransformersAssumes) {
  TinyModel model = llama_like({});
  for (const char* key : {"head_dim", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "attention_bias", "mlp_bias",
                          "hidden_act", "architectures"})
    model.config.erase(key);
  model.config["model_type"] = "llama";
  const Config c = read(model);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.norm_eps, 1e-6);
  EXPECT_EQ(c.rope.theta, 10000);
  EXPECT_EQ(c.hf_class, "LlamaForCausalLM");
}

TEST_F(ConfigTest, SlidingWindows) {
  LlamaOptions o;
  o.hf_class = "MistralForCausalLM";
  o.sliding_window = 9;
  EXPECT_EQ(read(llama_like(o)).window_of(1), 9);
  TinyModel mistral = llama_like(o);
  mistral.config["sliding_window"] = nullptr;
  EXPECT_EQ(read(mistral).window_of(0), 0);
  mistral.config.erase("sliding_window");
  EXPECT_EQ(read(mistral).window_of(0), 4096);
  EXPECT_EQ(read(with("sliding_window", 9)).window_of(0), 0);  // Llama has none

  o.hf_class = "Qwen2ForCausalLM";
  TinyModel qwen = llama_like(o);
  qwen.config["sliding_window"] = 9;
  EXPECT_EQ(read(qwen).window_of(0), 0);  // not switched on
  qwen.config["use_sliding_window"] = true;
  qwen.config["max_window_layers"] = 1;
  EXPECT_EQ(read(qwen).window_of(0), 0);
  EXPECT_EQ(read(qwen).window_of(1), 9);
  qwen.config["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(read(qwen).window_of(0), 9);
  EXPECT_EQ(read(qwen).window_of(1), 0);
}

TEST_F(ConfigTest, AnUnknownArchitectureListsTheKnown) {
  const ErrorInfo error = refusal(with("architectures", {"MysteryForCausalLM"}));
  EXPECT_EQ(error.what, "unknown architecture");
  EXPECT_EQ(error.got, "MysteryForCausalLM");
  for (const char* known : {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
                            "OPTForCausalLM", "GPT2LMHeadModel"})
    EXPECT_NE(error.expected.find(known), std::string::npos) << known;
  EXPECT_THROW(find_arch("mystery"), Error);
}

TEST_F(ConfigTest, AbsurdSizesAreRefused) {
  const std::vector<std::pair<const char*, Json>> bad = {
      {"num_hidden_layers", 0},
      {"num_hidden_layers", -1},
      {"num_hidden_layers", 1'000'000'000},
      {"num_hidden_layers", "2"},
      {"num_hidden_layers", 2.5},
      {"num_hidden_layers", true},
      {"num_hidden_layers", uint64_t{1} << 63},
      {"hidden_size", 0},
      {"hidden_size", int64_t{1} << 62},
      {"intermediate_size", -4},
      {"num_attention_heads", 0},
      {"num_attention_heads", int64_t{1} << 40},
      {"num_key_value_heads", 3},
      {"num_key_value_heads", 0},
      {"num_key_value_heads", 8},
      {"head_dim", -8},
      {"head_dim", 7},
      {"head_dim", int64_t{1} << 40},
      {"vocab_size", 0},
      {"vocab_size", int64_t{1} << 40},
      {"max_position_embeddings", 0},
      {"max_position_embeddings", int64_t{1} << 50},
      {"rms_norm_eps", -1.0},
      {"rope_theta", 0.0},
      {"rope_theta", -5.0},
      {"rope_theta", "10000"},
      {"hidden_act", "mystery"},
      {"rope_scaling", "linear"},
      {"tie_word_embeddings", 1},
      {"partial_rotary_factor", 0.0},
      {"architectures", {1}},
      {"eos_token_id", "two"},
      {"rope_scaling", {{"rope_type", "mystery"}, {"factor", 2.0}}},
      {"rope_scaling", {{"rope_type", "linear"}}},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 0.0}}},
      {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 2.0}, {"high_freq_factor", 1.0}}},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}, {"original_max_position_embeddings", 0}}},
  };
  for (const auto& [key, value] : bad) {
    const ErrorInfo error = refusal(with(key, value));
    EXPECT_NE(error.where.find("config.json"), std::string::npos) << key << " " << value;
    EXPECT_FALSE(error.what.empty() || error.got.empty()) << key << " " << value << ": " << error.what;
  }
}

TEST_F(ConfigTest, HeadsThatDoNotDivideAreRefused) {
  TinyModel model = llama_like({});
  model.config.erase("head_dim");
  model.config["num_attention_heads"] = 5;
  model.config["num_key_value_heads"] = 5;
  EXPECT_NE(refusal(model).what.find("attention heads"), std::string::npos);
}

TEST_F(ConfigTest, MissingKeysAreNamed) {
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
                          "max_position_embeddings", "intermediate_size"}) {
    TinyModel model = llama_like({});
    model.config.erase(key);
    EXPECT_NE(refusal(model).what.find(key), std::string::npos) << key;
  }
}

TEST_F(ConfigTest, ArithmeticThatIsNotBuiltIsRefused) {
  for (const char* key : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    TinyModel model = gpt2_like();
    model.config[key] = true;
    EXPECT_NE(refusal(model).what.find(key), std::string::npos);
  }
}

TEST_F(ConfigTest, ContradictedShapesNameTensorExpectedAndGot) {
  for (const auto& [name, key, value, expected, got] :
       std::vector<std::tuple<const char*, const char*, int, const char*, const char*>>{
           {"model.embed_tokens.weight", "vocab_size", 51, "[51, 32]", "[50, 32]"},
           {"mlp.gate_proj.weight", "intermediate_size", 47, "[47, 32]", "[48, 32]"},
           {"self_attn.k_proj.weight", "num_key_value_heads", 4, "[32, 32]", "[16, 32]"},
       }) {
    const ErrorInfo error = refusal(with(key, value));
    EXPECT_NE(error.where.find(name), std::string::npos) << error.where;
    EXPECT_EQ(error.expected, expected);
    EXPECT_EQ(error.got, got);
  }
  TinyModel gpt2 = gpt2_like();  // [in, out] would fit a square matrix only
  std::swap(gpt2.tensors["transformer.h.1.mlp.c_fc.weight"].shape[0],
            gpt2.tensors["transformer.h.1.mlp.c_fc.weight"].shape[1]);
  EXPECT_EQ(refusal(gpt2).expected, "[32, 128]");
}

TEST_F(ConfigTest, MissingTensorsAreNamed) {
  TinyModel model = with("num_hidden_layers", 3);
  EXPECT_NE(refusal(model).where.find("model.layers.2."), std::string::npos);
  model = with("attention_bias", true);
  EXPECT_NE(refusal(model).where.find("self_attn.q_proj.bias"), std::string::npos);
  model = llama_like({});
  model.tensors.erase("lm_head.weight");
  EXPECT_NE(refusal(model).where.find("lm_head.weight"), std::string::npos);
  model.config["tie_word_embeddings"] = true;
  EXPECT_TRUE(read(model).tied_head);
}

TEST(Arch, EveryRowIsComplete) {
  for (const Arch& arch : all_archs()) {
    EXPECT_EQ(&find_arch(arch.name), &arch);
    EXPECT_EQ(find_hf_class(arch.hf_classes.front()), &arch);
    EXPECT_NE(find_tensor(arch, Role::token_embedding), nullptr);
    for (const TensorName& t : arch.tensors) {
      if (!arch.gguf.empty()) {
        EXPECT_FALSE(t.gguf.empty()) << t.hf;
        EXPECT_EQ(t.gguf.find("{}") != std::string_view::npos, is_per_layer(t)) << t.hf;
      }
      EXPECT_FALSE(name_of(t.role).empty());
      // Each role once, but for alternatives.
      EXPECT_TRUE(t.present || find_tensor(arch, t.role) == &t) << t.hf;
    }
  }
}

TEST(Arch, NamesLeadToPlacesAndBack) {
  TemporaryDirectory dir;
  const TinyModel tiny = llama_like({});
  const auto checkpoint = stored(tiny, dir.path());
  const TensorNames names(find_arch("llama"), *checkpoint);
  for (const auto& [name, t] : tiny.tensors) {
    const auto place = names.place(name);
    ASSERT_TRUE(place) << name;
    EXPECT_EQ(names.weight(*place->tensor, place->layer), name);
  }
  EXPECT_EQ(names.place("model.layers.1.mlp.up_proj.bias")->weight, false);
  for (const char* unknown :
       {"model.layers..mlp.up_proj.weight", "model.layers.x.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.scales",
        "model.layers.-1.mlp.up_proj.weight", "model.layers.99999999999.mlp.up_proj.weight", "weight", ".weight", ""})
    EXPECT_FALSE(names.place(unknown)) << unknown;
}

}  // namespace
}  // namespace pare::test
