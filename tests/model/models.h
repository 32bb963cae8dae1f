// Tiny random models of every family, written to disk as transformers writes them, and a second forward pass that
// shares nothing with Pare's: plain loops in double, straight from the families' papers and config.json.
#pragma once

#include <map>

#include "pare/base/error.h"
#include "pare/model/decoder.h"
#include "tests/support/golden.h"

namespace pare::test {

struct StoredFloats {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

struct TinyModel {
  Json config;
  std::map<std::string, StoredFloats> tensors;
  const StoredFloats& at(const std::string& name) const { return tensors.at(name); }
};

struct LlamaOptions {
  std::string hf_class = "LlamaForCausalLM";
  int64_t layers = 2, hidden = 32, ffn = 48, heads = 4, kv_heads = 2, head_dim = 8, vocab = 50, context = 64;
  bool attention_bias = false, mlp_bias = false, tied = false, qk_norm = false;
  int64_t sliding_window = 0;
  int64_t experts = 0;  // Mixtral's, two for each token
};
TinyModel llama_like(const LlamaOptions& options);     // also Mistral, Qwen2 (biases of q, k, v), Qwen3
TinyModel opt_like(bool pre_norm, int64_t embedding);  // hidden 32
TinyModel gpt2_like();

void write_model(const TinyModel& model, const std::filesystem::path& directory, DType type = DType::f32);
// Writes and opens.
std::shared_ptr<const Checkpoint> stored(const TinyModel& model, const std::filesystem::path& directory,
                                         DType type = DType::f32);

// tokens x vocab
std::vector<std::vector<double>> reference_logits(const TinyModel& model, const std::vector<int32_t>& tokens);

// Largest difference at any position, relative to the largest logit.
double relative_difference(const Matrix& got, const std::vector<std::vector<double>>& expected);
double relative_difference(MatrixView got, MatrixView expected);

std::vector<int32_t> some_tokens(int64_t count, int64_t vocab);
ErrorInfo error_of(const std::function<void()>& action);

// A tensor of a reference file, as floats.
Matrix golden_tensor(const std::filesystem::path& file, const std::string& name);

}  // namespace pare::test
