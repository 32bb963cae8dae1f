// Against what transformers computes: ../shared/golden/logits, in both spellings of config.json.
#include "pare/container/safetensors.h"
#include "pare/model/generate.h"
#include "tests/model/models.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;

struct Golden {
  std::string name, config;
};

// The second spelling is there for families that transformers 4 knows.
std::vector<Golden> in_both_spellings(std::initializer_list<const char*> names) {
  std::vector<Golden> out;
  for (const char* name : names)
    for (const char* config : {"config.json", "config_v4.json"})
      if (config == std::string_view("config.json") || !fs::exists(shared("golden/logits")) ||
          fs::exists(shared(std::string("golden/logits/") + name) / config))
        out.push_back({name, config});
  return out;
}

// The golden's weights with one of its two configurations, as a directory of its own.
void lay_out(const Golden& golden, const fs::path& to) {
  const fs::path from = fs::absolute(shared("golden/logits/" + golden.name));
  fs::create_directories(to);
  fs::copy_file(from / golden.config, to / "config.json");
  for (const auto& entry : fs::directory_iterator(from))
    if (const auto name = entry.path().filename().string(); name.starts_with("model") || name.starts_with("pytorch_"))
      fs::create_symlink(entry.path(), to / entry.path().filename());
}

class GoldenLogits : public testing::TestWithParam<Golden> {
 protected:
  void SetUp() override {
    PARE_NEEDS_SHARED("golden/logits");
    from_ = shared("golden/logits/" + GetParam().name);
    lay_out(GetParam(), dir_.path());
    inputs_ = read_json_file((from_ / "inputs.json").string());
    model_ = std::make_unique<Decoder>(Checkpoint::open(dir_.path()));
  }
  std::vector<int32_t> sequence(size_t i) const { return inputs_["sequences"][i].get<std::vector<int32_t>>(); }
  Matrix expected(size_t i) const { return golden_tensor(from_ / "logits.safetensors", "logits_" + std::to_string(i)); }
  // Under these scalings a piece of a long sequence, which knows only its own length, is rotated otherwise.
  bool pieces_differ(size_t length) const {
    const Rope& rope = model_->config().rope;
    return (rope.kind == Rope::Kind::dynamic || rope.kind == Rope::Kind::longrope) &&
           static_cast<int64_t>(length) > rope.original_context;
  }

  TemporaryDirectory dir_;
  fs::path from_;
  Json inputs_;
  std::unique_ptr<Decoder> model_;
};
std::string name_of_case(const testing::TestParamInfo<Golden>& one) {
  return one.param.name + (one.param.config == "config.json" ? "_v5" : "_v4");
}
INSTANTIATE_TEST_SUITE_P(Golden, GoldenLogits,
                         testing::ValuesIn(in_both_spellings({"llama",
                                                              "llama_gqa_bf16",
                                                              "llama_gqa_f16_bin",
                                                              "llama_tied",
                                                              "llama_bias",
                                                              "llama3_rope",
                                                              "llama_linear_rope",
                                                              "llama_dynamic_rope",
                                                              "llama_yarn_rope",
                                                              "mistral_swa",
                                                              "qwen2",
                                                              "qwen3",
                                                              "opt_125m",
                                                              "opt_350m",
                                                              "gpt2",
                                                              "arcee",
                                                              "cohere",
                                                              "cohere_qknorm",
                                                              "cohere2",
                                                              "gemma",
                                                              "gemma2",
                                                              "gemma3_text",
                                                              "glm",
                                                              "glm4",
                                                              "granite",
                                                              "nemotron",
                                                              "olmo",
                                                              "olmo2",
                                                              "phi2",
                                                              "phi3",
                                                              "phi3_longrope",
                                                              "smollm3",
                                                              "stablelm",
                                                              "stablelm_parallel",
                                                              "starcoder2",
                                                              "bloom",
                                                              "codegen",
                                                              "falcon_7b",
                                                              "falcon_40b",
                                                              "falcon_rw",
                                                              "gpt_bigcode",
                                                              "gpt_neo",
                                                              "gpt_neox",
                                                              "gptj",
                                                              "mpt",
                                                              "mixtral",
                                                              "granitemoe",
                                                              "dbrx",
                                                              "llama4_text",
                                                              "gpt_oss",
                                                              "apertus",
                                                              "phimoe",
                                                              "qwen2_moe",
                                                              "qwen2_moe_mixed",
                                                              "qwen3_moe",
                                                              "olmoe",
                                                              "ernie4_5_moe",
                                                              "glm4_moe",
                                                              "deepseek_v2",
                                                              "deepseek_v3",
                                                              "minicpm3"})),
                         name_of_case);

class GoldenHidden : public GoldenLogits {};
INSTANTIATE_TEST_SUITE_P(Golden, GoldenHidden, testing::ValuesIn(in_both_spellings({"llama", "opt_125m", "opt_350m"})),
                         name_of_case);

constexpr double kTolerance = 2e-5;  // five times tighter than promised: relative to the largest logit

TEST_P(GoldenLogits, InOneGo) {
  for (size_t i = 0; i < 3; ++i) EXPECT_LT(relative_difference(model_->logits(sequence(i)), expected(i)), kTolerance);
}

TEST_P(GoldenLogits, InPieces) {
  for (size_t i = 0; i < 3; ++i) {
    const auto tokens = sequence(i);
    if (pieces_differ(tokens.size())) continue;
    const Matrix all = expected(i);
    for (const size_t piece : {size_t{1}, size_t{7}, tokens.size()}) {
      KvCache cache(model_->config(), static_cast<int64_t>(tokens.size()));
      for (size_t at = 0; at < tokens.size(); at += piece) {
        const Matrix part = model_->forward({tokens.data() + at, std::min(piece, tokens.size() - at)}, cache, true);
        const auto first = static_cast<int64_t>(at);
        EXPECT_LT(relative_difference(part, MatrixView(all).rows_between(first, first + part.rows())), kTolerance);
      }
    }
  }
}

TEST_P(GoldenLogits, GreedyTextWithoutACache) {
  auto tokens = sequence(inputs_["greedy_prompt"].get<size_t>());
  Sampler greedy({});
  for (const Json& next : inputs_["greedy_continuation"]) {
    const Matrix logits = model_->logits(tokens);
    ASSERT_EQ(greedy.pick({logits.row(logits.rows() - 1), static_cast<size_t>(logits.cols())}), next.get<int32_t>());
    tokens.push_back(next.get<int32_t>());
  }
}

TEST_P(GoldenLogits, GreedyTextWithACache) {
  const auto prompt = sequence(inputs_["greedy_prompt"].get<size_t>());
  const Json& wanted = inputs_[inputs_.contains("generate_with_cache") ? "generate_with_cache" : "greedy_continuation"];
  EXPECT_EQ(generate(*model_, prompt, 16, {}, {}).tokens, wanted.get<std::vector<int32_t>>());
}

TEST_P(GoldenHidden, OutputsOfBlocks) {
  const fs::path file = from_ / "hidden/hidden.safetensors";
  Matrix hidden = model_->embed(sequence(1));
  EXPECT_LT(relative_difference(hidden, golden_tensor(file, "layer_input")), 1e-6);
  for (int layer = 0; layer < 2; ++layer) {
    model_->attention(layer, hidden);
    model_->feed_forward(layer, hidden);
    EXPECT_LT(relative_difference(hidden, golden_tensor(file, "layer_" + std::to_string(layer))), kTolerance);
  }
}

// What the tap of calibration sees: the input of each site times a linear's weight is that linear's output.
TEST_P(GoldenHidden, OutputsOfLinears) {
  const fs::path file = from_ / "hidden/hidden.safetensors";
  Matrix hidden = model_->embed(sequence(1));
  for (int layer = 0; layer < 2; ++layer)
    for (const Tap tap : model_->taps(layer)) {
      if (tap.site == Site::ffn_in) model_->attention(layer, hidden);
      const Matrix input = model_->tap_input(layer, tap, hidden);
      for (const Linear& linear : model_->linears(layer)) {
        if (linear.tap != tap) continue;
        const std::string module = linear.name.substr(0, linear.name.size() - 7);
        Matrix out(input.rows(), linear.shape.rows);
        PackedMatrix::of_matrix(model_->weight(linear)).multiply(input, out.data(), out.cols());
        if (model_->checkpoint().has(module + ".bias")) {
          const Weight bias = model_->checkpoint().load(module + ".bias");
          const Matrix b = std::get<FloatTensor>(bias).to_matrix();
          for (int64_t r = 0; r < out.rows(); ++r)
            for (int64_t c = 0; c < out.cols(); ++c) out(r, c) += b(0, c);
        }
        EXPECT_LT(relative_difference(out, golden_tensor(file, "out." + module)), kTolerance) << module;
      }
      if (tap.site == Site::ffn_out) model_->feed_forward(layer, hidden);
    }
}

}  // namespace
}  // namespace pare::test
