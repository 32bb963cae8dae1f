// Adapters folded into the demo model, against the same arithmetic in double.
#include "pare/convert/merge_lora.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <random>

#include "pare/container/safetensors.h"
#include "pare/convert/arrangement.h"
#include "tests/quantize/model_files.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kQ = "model.layers.0.self_attn.q_proj";  // 256 x 256
constexpr const char* kDown = "model.layers.1.mlp.down_proj";  // 256 x 768

class Lora : public testing::Test {
 protected:
  void add(const std::string& name, Matrix values) { tensors_.emplace("base_model.model." + name, std::move(values)); }
  static Matrix random(int64_t rows, int64_t cols, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(0, 0.05f);
    Matrix m(rows, cols);
    for (float& x : m.values()) x = normal(engine);
    return m;
  }
  fs::path write(const Json& more = Json::object()) {
    const fs::path to = folder_ / "adapter";
    fs::remove_all(to);
    fs::create_directories(to);
    Json config = {{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}, {"base_model_name_or_path", "demo"}};
    config.update(more);
    std::ofstream(to / "adapter_config.json") << config.dump();
    std::vector<SafetensorsSlot> slots;
    for (const auto& [name, m] : tensors_) slots.push_back({name, DType::f32, {m.rows(), m.cols()}});
    SafetensorsWriter writer(to / "adapter_model.safetensors", slots);
    for (const auto& [name, m] : tensors_) writer.add(name, std::as_bytes(m.values()));
    writer.commit();
    return to;
  }
  // The merged model in f32.
  std::shared_ptr<const Checkpoint> merged(const fs::path& adapter, const fs::path& base = demo_model()) {
    ConversionSettings settings{.container = "safetensors", .dtype = DType::f32, .dequantize = true, .overwrite = true};
    quantize(plan_merge(Checkpoint::open(base), adapter, settings), folder_ / "out");
    return Checkpoint::open(folder_ / "out");
  }
  ErrorInfo refusal(const Json& more = Json::object()) {
    return error_of([&] { merged(write(more)); });
  }
  static Matrix values(const std::shared_ptr<const Checkpoint>& model, const std::string& name) {
    return Arrangement(model).values(name);
  }
  void add_pair(const std::string& module, int64_t outputs, int64_t inputs, int64_t rank, unsigned seed) {
    add(module + ".lora_A.weight", random(rank, inputs, seed));
    add(module + ".lora_B.weight", random(outputs, rank, seed + 1));
  }
  // W + scale B A, in double.
  Matrix expected(const std::string& module, double scale, const Matrix& w) const {
    const Matrix &a = tensors_.at("base_model.model." + module + ".lora_A.weight"),
                 &b = tensors_.at("base_model.model." + module + ".lora_B.weight");
    Matrix out(w.rows(), w.cols());
    for (int64_t r = 0; r < w.rows(); ++r)
      for (int64_t c = 0; c < w.cols(); ++c) {
        double sum = 0;
        for (int64_t k = 0; k < a.rows(); ++k) sum += static_cast<double>(b(r, k)) * a(k, c);
        out(r, c) = static_cast<float>(w(r, c) + scale * sum);
      }
    return out;
  }
  static void expect_near(const Matrix& got, const Matrix& wanted) {
    ASSERT_EQ(got.shape(), wanted.shape());
    for (int64_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got.data()[i], wanted.data()[i], 1e-6) << i;
  }

  std::map<std::string, Matrix> tensors_;
  TemporaryDirectory folder_;
  const std::shared_ptr<const Checkpoint> base_ = Checkpoint::open(demo_model());
};

TEST_F(Lora, AddsItsProductAndNothingElse) {
  add_pair(kQ, 256, 256, 4, 1);
  add_pair(kDown, 256, 768, 4, 3);
  const auto model = merged(write());
  for (const std::string& name : base_->weights()) {
    const Matrix before = values(base_, name), after = values(model, name);
    if (name == std::string(kQ) + ".weight")
      expect_near(after, expected(kQ, 2, before));
    else if (name == std::string(kDown) + ".weight")
      expect_near(after, expected(kDown, 2, before));
    else
      EXPECT_TRUE(before == after) << name;
  }
}

TEST_F(Lora, PatternsAndRankStabilizedScales) {
  add_pair(kQ, 256, 256, 4, 1);
  add_pair(kDown, 256, 768, 16, 3);
  const auto model = merged(write({{"rank_pattern", {{"down_proj", 16}}},
                                   {"alpha_pattern", {{"layers\\.\\d+\\.mlp\\.down_proj", 6}}},
                                   {"use_rslora", true}}));
  expect_near(values(model, std::string(kQ) + ".weight"),
              expected(kQ, 8 / 2.0, values(base_, std::string(kQ) + ".weight")));
  expect_near(values(model, std::string(kDown) + ".weight"),
              expected(kDown, 6 / 4.0, values(base_, std::string(kDown) + ".weight")));
  EXPECT_THAT(refusal({{"use_rslora", true}}).what, HasSubstr("rank"));  // one has 16, the configuration says 4
}

TEST_F(Lora, DoraRescalesEveryOutput) {
  add_pair(kQ, 256, 256, 4, 1);
  Matrix lengths(1, 256);
  for (int64_t r = 0; r < 256; ++r) lengths(0, r) = 0.5f + 0.01f * static_cast<float>(r);
  add(std::string(kQ) + ".lora_magnitude_vector.weight", lengths);
  const auto model = merged(write({{"use_dora", true}}));
  const Matrix sum = expected(kQ, 2, values(base_, std::string(kQ) + ".weight")),
               got = values(model, std::string(kQ) + ".weight");
  for (int64_t r = 0; r < 256; ++r) {
    double power = 0;
    for (int64_t c = 0; c < 256; ++c) power += static_cast<double>(sum(r, c)) * sum(r, c);
    for (int64_t c = 0; c < 256; ++c) ASSERT_NEAR(got(r, c), sum(r, c) * lengths(0, r) / std::sqrt(power), 1e-5);
  }
}

TEST_F(Lora, EmbeddingsAndWholeModules) {
  add("model.embed_tokens.lora_embedding_A", random(4, 4096, 1));
  add("model.embed_tokens.lora_embedding_B", random(256, 4, 2));
  add("model.norm.modules_to_save.weight", random(1, 256, 3));
  const auto model = merged(write());
  const Matrix before = values(base_, "model.embed_tokens.weight"), after = values(model, "model.embed_tokens.weight");
  const Matrix &a = tensors_.at("base_model.model.model.embed_tokens.lora_embedding_A"),
               &b = tensors_.at("base_model.model.model.embed_tokens.lora_embedding_B");
  for (const int64_t token : {0, 1, 77, 4095})
    for (int64_t c = 0; c < 256; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < 4; ++k) sum += static_cast<double>(a(k, token)) * b(c, k);
      ASSERT_NEAR(after(token, c), before(token, c) + 2 * sum, 1e-6);
    }
  EXPECT_TRUE(values(model, "model.norm.weight") == tensors_.at("base_model.model.model.norm.modules_to_save.weight"));
}

TEST_F(Lora, IntoAQuantizedBase) {
  quantize(plan_for(demo_model(), quick_settings("rtn-int8-g128")), folder_ / "base");
  add_pair(kQ, 256, 256, 4, 1);
  const auto base = Checkpoint::open(folder_ / "base");
  const auto model = merged(write(), folder_ / "base");
  EXPECT_EQ(model->quantization(), "none");
  expect_near(values(model, std::string(kQ) + ".weight"), expected(kQ, 2, values(base, std::string(kQ) + ".weight")));
  // Onto a grid again: only the merged matrix is rounded anew.
  const auto plan = plan_merge(base, write(), {.container = "gptq"});
  const QuantizeReport report = quantize(plan, folder_ / "gptq");
  for (const TensorReport& r : report.tensors)
    EXPECT_EQ(r.weight_error > 0, r.name == std::string(kQ) + ".weight") << r.name;
}

TEST_F(Lora, AdaptersThatAreNotForThisBaseOrNotWhole) {
  add_pair("model.layers.99.mlp.up_proj", 768, 256, 4, 1);
  EXPECT_THAT(refusal().what, HasSubstr("another base"));
  EXPECT_THAT(refusal().where, HasSubstr("layers.99"));
  tensors_.clear();
  add_pair(kQ, 512, 256, 4, 1);
  EXPECT_THAT(refusal().what, AllOf(HasSubstr("another base"), HasSubstr("shapes differ")));
  EXPECT_THAT(refusal().remedy, HasSubstr("demo"));
  tensors_.clear();
  add_pair(kQ, 256, 256, 4, 1);
  EXPECT_THAT(refusal({{"peft_type", "IA3"}}).what, HasSubstr("only LoRA"));
  add(std::string(kQ) + ".lora_X.weight", random(4, 4, 1));
  EXPECT_THAT(refusal().what, HasSubstr("of a kind that is not merged"));
  tensors_.clear();
  add(std::string(kQ) + ".lora_A.weight", random(4, 256, 1));
  EXPECT_THAT(refusal().what, HasSubstr("half of a module"));
  EXPECT_THAT(error_of([&] { merged(folder_.path()); }).what, HasSubstr("no PEFT adapter"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

}  // namespace
}  // namespace pare::test
