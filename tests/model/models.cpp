#include "tests/model/models.h"

#include <cmath>
#include <fstream>
#include <random>

#include "pare/container/safetensors.h"

namespace pare::test {
namespace {

class Builder {
 public:
  explicit Builder(uint64_t seed) : random_(seed) {}
  void matrix(const std::string& name, int64_t rows, int64_t cols) {
    add(name, {rows, cols}, 0, 1.5f / std::sqrt(static_cast<float>(cols)));
  }
  void norm(const std::string& name, int64_t n) { add(name, {n}, 1, 0.3f); }
  void bias(const std::string& name, int64_t n) { add(name, {n}, 0, 0.3f); }
  TinyModel model;

 private:
  void add(const std::string& name, std::vector<int64_t> shape, float mean, float deviation) {
    StoredFloats t{std::move(shape), {}};
    int64_t count = 1;
    for (const int64_t n : t.shape) count *= n;
    std::normal_distribution<float> normal(mean, deviation);
    for (int64_t i = 0; i < count; ++i) t.values.push_back(bf16_to_f32(f32_to_bf16(normal(random_))));
    model.tensors[name] = std::move(t);
  }
  static float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }
  static uint16_t f32_to_bf16(float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); }
  std::mt19937_64 random_;
};

}  // namespace

TinyModel llama_like(const LlamaOptions& o) {
  Builder b(7);
  const bool qwen2 = o.hf_class == "Qwen2ForCausalLM";
  b.model.config = {{"architectures", {o.hf_class}},
                    {"hidden_size", o.hidden},
                    {"intermediate_size", o.ffn},
                    {"num_hidden_layers", o.layers},
                    {"num_attention_heads", o.heads},
                    {"num_key_value_heads", o.kv_heads},
                    {"head_dim", o.head_dim},
                    {"vocab_size", o.vocab},
                    {"max_position_embeddings", o.context},
                    {"rms_norm_eps", 1e-5},
                    {"rope_theta", 10000.0},
                    {"hidden_act", "silu"},
                    {"attention_bias", o.attention_bias},
                    {"mlp_bias", o.mlp_bias},
                    {"tie_word_embeddings", o.tied},
                    {"bos_token_id", 1},
                    {"eos_token_id", 2},
                    {"torch_dtype", "float32"}};
  if (o.experts > 0) b.model.config.update({{"num_local_experts", o.experts}, {"num_experts_per_tok", 2}});
  if (o.hf_class == "MistralForCausalLM")
    b.model.config["sliding_window"] = o.sliding_window > 0 ? Json(o.sliding_window) : Json();
  b.matrix("model.embed_tokens.weight", o.vocab, o.hidden);
  if (!o.tied) b.matrix("lm_head.weight", o.vocab, o.hidden);
  b.norm("model.norm.weight", o.hidden);
  const int64_t q = o.heads * o.head_dim, kv = o.kv_heads * o.head_dim;
  for (int64_t i = 0; i < o.layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    const auto linear = [&](const std::string& name, int64_t rows, int64_t cols, bool bias) {
      b.matrix(at + name + ".weight", rows, cols);
      if (bias) b.bias(at + name + ".bias", rows);
    };
    b.norm(at + "input_layernorm.weight", o.hidden);
    b.norm(at + "post_attention_layernorm.weight", o.hidden);
    linear("self_attn.q_proj", q, o.hidden, o.attention_bias || qwen2);
    linear("self_attn.k_proj", kv, o.hidden, o.attention_bias || qwen2);
    linear("self_attn.v_proj", kv, o.hidden, o.attention_bias || qwen2);
    linear("self_attn.o_proj", o.hidden, q, o.attention_bias);
    if (o.experts > 0) linear("block_sparse_moe.gate", o.experts, o.hidden, false);
    for (int64_t e = 0; e < o.experts; ++e) {
      const std::string expert = "block_sparse_moe.experts." + std::to_string(e) + ".";
      linear(expert + "w1", o.ffn, o.hidden, false);
      linear(expert + "w3", o.ffn, o.hidden, false);
      linear(expert + "w2", o.hidden, o.ffn, false);
    }
    if (o.experts == 0) {
      linear("mlp.gate_proj", o.ffn, o.hidden, o.mlp_bias);
      linear("mlp.up_proj", o.ffn, o.hidden, o.mlp_bias);
      linear("mlp.down_proj", o.hidden, o.ffn, o.mlp_bias);
    }
    if (o.qk_norm) b.norm(at + "self_attn.q_norm.weight", o.head_dim);
    if (o.qk_norm) b.norm(at + "self_attn.k_norm.weight", o.head_dim);
  }
  return b.model;
}

TinyModel opt_like(bool pre_norm, int64_t embedding) {
  Builder b(8);
  constexpr int64_t kHidden = 32, kFfn = 40, kVocab = 50, kContext = 24;
  b.model.config = {{"architectures", {"OPTForCausalLM"}},
                    {"hidden_size", kHidden},
                    {"ffn_dim", kFfn},
                    {"num_hidden_layers", 2},
                    {"num_attention_heads", 4},
                    {"vocab_size", kVocab},
                    {"max_position_embeddings", kContext},
                    {"do_layer_norm_before", pre_norm},
                    {"word_embed_proj_dim", embedding},
                    {"activation_function", "relu"},
                    {"torch_dtype", "float32"}};
  b.matrix("model.decoder.embed_tokens.weight", kVocab, embedding);
  b.matrix("model.decoder.embed_positions.weight", kContext + 2, kHidden);
  if (embedding != kHidden) b.matrix("model.decoder.project_in.weight", kHidden, embedding);
  if (embedding != kHidden) b.matrix("model.decoder.project_out.weight", embedding, kHidden);
  const auto norm = [&](const std::string& name) {
    b.norm(name + ".weight", kHidden);
    b.bias(name + ".bias", kHidden);
  };
  if (pre_norm) norm("model.decoder.final_layer_norm");
  for (int i = 0; i < 2; ++i) {
    const std::string at = "model.decoder.layers." + std::to_string(i) + ".";
    norm(at + "self_attn_layer_norm");
    norm(at + "final_layer_norm");
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      b.matrix(at + "self_attn." + name + ".weight", kHidden, kHidden);
      b.bias(at + "self_attn." + name + ".bias", kHidden);
    }
    b.matrix(at + "fc1.weight", kFfn, kHidden);
    b.bias(at + "fc1.bias", kFfn);
    b.matrix(at + "fc2.weight", kHidden, kFfn);
    b.bias(at + "fc2.bias", kHidden);
  }
  return b.model;
}

TinyModel gpt2_like() {
  Builder b(9);
  constexpr int64_t kHidden = 32, kVocab = 50, kContext = 24;
  b.model.config = {{"architectures", {"GPT2LMHeadModel"}},
                    {"n_embd", kHidden},
                    {"n_head", 4},
                    {"n_layer", 2},
                    {"n_inner", nullptr},
                    {"n_positions", kContext},
                    {"vocab_size", kVocab},
                    {"activation_function", "gelu_new"},
                    {"layer_norm_epsilon", 1e-5}};
  const auto norm = [&](const std::string& name) {
    b.norm(name + ".weight", kHidden);
    b.bias(name + ".bias", kHidden);
  };
  b.matrix("transformer.wte.weight", kVocab, kHidden);
  b.matrix("transformer.wpe.weight", kContext, kHidden);
  norm("transformer.ln_f");
  for (int i = 0; i < 2; ++i) {
    const std::string at = "transformer.h." + std::to_string(i) + ".";
    norm(at + "ln_1");
    norm(at + "ln_2");
    const auto conv = [&](const std::string& name, int64_t in, int64_t out) {
      b.matrix(at + name + ".weight", in, out);
      b.bias(at + name + ".bias", out);
    };
    conv("attn.c_attn", kHidden, 3 * kHidden);
    conv("attn.c_proj", kHidden, kHidden);
    conv("mlp.c_fc", kHidden, 4 * kHidden);
    conv("mlp.c_proj", 4 * kHidden, kHidden);
  }
  return b.model;
}

void write_model(const TinyModel& model, const std::filesystem::path& directory, DType type) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "config.json") << model.config.dump(2);
  std::vector<SafetensorsSlot> slots;
  for (const auto& [name, t] : model.tensors) slots.push_back({name, type, t.shape});
  SafetensorsWriter writer(directory / "model.safetensors", slots);
  for (const auto& [name, t] : model.tensors) {
    std::vector<std::byte> bytes(t.values.size() * static_cast<size_t>(info(type).bits / 8));
    from_f32(type, t.values, bytes);
    writer.add(name, bytes);
  }
  writer.commit();
}

std::shared_ptr<const Checkpoint> stored(const TinyModel& model, const std::filesystem::path& directory, DType type) {
  write_model(model, directory, type);
  return Checkpoint::open(directory);
}

double relative_difference(MatrixView got, MatrixView expected) {
  EXPECT_EQ(got.rows, expected.rows);
  EXPECT_EQ(got.cols, expected.cols);
  if (!(got.shape() == expected.shape())) return INFINITY;
  double largest = 0, difference = 0;
  for (int64_t r = 0; r < got.rows; ++r)
    for (int64_t c = 0; c < got.cols; ++c) {
      largest = std::max(largest, std::abs(double{expected(r, c)}));
      const double d = std::abs(double{got(r, c)} - double{expected(r, c)});
      difference = std::isnan(d) ? INFINITY : std::max(difference, d);
    }
  return difference / largest;
}

double relative_difference(const Matrix& got, const std::vector<std::vector<double>>& expected) {
  Matrix e(static_cast<int64_t>(expected.size()), static_cast<int64_t>(expected.at(0).size()));
  for (int64_t r = 0; r < e.rows(); ++r)
    for (int64_t c = 0; c < e.cols(); ++c)
      e(r, c) = static_cast<float>(expected[static_cast<size_t>(r)][static_cast<size_t>(c)]);
  return relative_difference(MatrixView(got), e);
}

std::vector<int32_t> some_tokens(int64_t count, int64_t vocab) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<int32_t>((i * 37 + 11) % vocab));
  return out;
}

ErrorInfo error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.info();
  }
  ADD_FAILURE() << "no Error was thrown";
  return {};
}

Matrix golden_tensor(const std::filesystem::path& file, const std::string& name) {
  const auto opened = SafetensorsFile::open(file);
  for (const SafetensorsEntry& e : opened->entries())
    if (e.name == name) return FloatTensor{e.dtype, e.shape, e.bytes}.to_matrix();
  ADD_FAILURE() << name << " is not in " << file;
  return {};
}

}  // namespace pare::test
