#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "pare/base/mapped_file.h"
#include "pare/base/sha256.h"
#include "pare/base/threads.h"
#include "pare/model/decoder.h"
#include "pare/quantize/report_json.h"
#include "pare/quantize/verify.h"
#include "pare/tokenizer/tokenizer.h"
#include "tests/quantize/model_files.h"
#include "tests/readers/second_reader.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

const std::vector<int32_t> kPrompt = [] {
  std::vector<int32_t> ids = {4094};
  for (int i = 1; i < 48; ++i) ids.push_back((i * 37 + 11) % 4000);
  return ids;
}();

Matrix logits_of(const fs::path& model) { return Decoder(Checkpoint::open(model)).logits(kPrompt); }

// Mean over positions of KL(p || q).
double mean_kl(const Matrix& p, const Matrix& q) {
  double total = 0;
  for (int64_t t = 0; t < p.rows(); ++t) {
    double zp = 0, zq = 0;
    for (int64_t v = 0; v < p.cols(); ++v) zp += std::exp(p(t, v)), zq += std::exp(q(t, v));
    for (int64_t v = 0; v < p.cols(); ++v)
      total += std::exp(p(t, v)) / zp * ((p(t, v) - std::log(zp)) - (q(t, v) - std::log(zq)));
  }
  return total / static_cast<double>(p.rows());
}

TEST(Pipeline, EveryRecipeRunsAndIsNearTheOriginal) {
  test::TemporaryDirectory directory;
  const Matrix original = logits_of(test::demo_model());
  for (const Recipe& recipe : all_recipes()) {
    SCOPED_TRACE(recipe.name);
    const fs::path out = directory / (recipe.container == "gguf" ? recipe.name + ".gguf" : recipe.name);
    const Plan plan = test::plan_for(test::demo_model(), test::quick_settings(recipe.name));
    const QuantizeReport report = quantize(plan, out);
    const auto written = Checkpoint::open(out);
    EXPECT_EQ(written->file_bytes(), plan.output_bytes);
    EXPECT_EQ(report.tensors.size(), plan.tensors.size());
    const double kl = mean_kl(original, Decoder(written).logits(kPrompt));
    const auto* grid = std::get_if<Grid>(&recipe.linear);
    const double bits = grid ? bits_per_weight(*grid, {256, 256}) : 16;
    const double limit = bits > 15 ? 1e-3 : bits > 8 ? 0.01 : bits > 6 ? 0.05 : bits > 4 ? 0.3 : 3;
    EXPECT_LT(kl, limit);
    EXPECT_GE(kl, -1e-6);
  }
}

TEST(Pipeline, SecondReaderSeesTheReportedErrors) {
  test::TemporaryDirectory directory;
  const auto original = test::read_directory(test::demo_model());
  const Plan plan = test::plan_for(test::demo_model(), test::quick_settings("gptq-int4-g128"));
  const QuantizeReport report = quantize(plan, directory / "out");
  const auto written = test::read_gptq_directory(directory / "out");
  for (const TensorReport& r : report.tensors) {
    const auto &before = original.at(r.source).values, &after = written.at(r.name).values;
    ASSERT_EQ(before.size(), after.size());
    double error = 0, power = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      error += std::pow(double(before[i]) - after[i], 2);
      power += std::pow(double(before[i]), 2);
    }
    EXPECT_NEAR(error / power, r.weight_error, 1e-6) << r.name;
  }
}

TEST(Pipeline, AnyThreadCountGivesTheSameBytes) {
  test::TemporaryDirectory directory;
  for (const char* recipe : {"Q4_K", "gptq-int4-g128"}) {
    std::vector<std::string> hashes;
    for (const int count : {1, 2, 3}) {
      set_threads(count);
      Settings s = test::quick_settings(recipe);
      s.recipe.method = Method::gptq;
      s.overwrite = true;
      const fs::path out = directory / (s.recipe.container == "gguf" ? "x.gguf" : "x");
      hashes.push_back(quantize(test::plan_for(test::demo_model(), s), out).output_sha256);
    }
    set_threads(0);
    EXPECT_EQ(hashes[0], hashes[1]) << recipe;
    EXPECT_EQ(hashes[0], hashes[2]) << recipe;
  }
}

TEST(Pipeline, SeedAndOptionsChangeTheResult) {
  test::TemporaryDirectory directory;
  Settings s = test::quick_settings("gptq-int4-g128");
  s.overwrite = true;
  const auto hash = [&](const Settings& settings) {
    return quantize(test::plan_for(test::demo_model(), settings), directory / "x").output_sha256;
  };
  const std::string plain = hash(s);
  Settings other = s;
  other.gptq.order = ColumnOrder::natural;
  EXPECT_NE(hash(other), plain);
  other = s;
  other.stored_order = true;
  EXPECT_NE(hash(other), plain);
  other = s;
  other.true_sequential = false;
  EXPECT_NE(hash(other), plain);
  other = s;
  other.gptq.damp = 0.01;
  EXPECT_NE(hash(other), plain);
  EXPECT_EQ(hash(s), plain);
}

TEST(Pipeline, DirectoryIsComplete) {
  test::TemporaryDirectory directory;
  const fs::path out = directory / "out";
  Settings s = test::quick_settings("gptq-int4-g128");
  s.max_shard_bytes = 4 << 20;
  quantize(test::plan_for(test::demo_model(), s), out);
  for (const char* name : {"config.json", "quantize_config.json", "model.safetensors.index.json", "tokenizer.json",
                           "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "README.md",
                           "pare-report.json", "SHA256SUMS"})
    EXPECT_TRUE(fs::exists(out / name)) << name;
  std::ifstream sums(out / "SHA256SUMS");
  int listed = 0;
  for (std::string hash, name; sums >> hash >> name; ++listed) EXPECT_EQ(sha256_of_file(out / name), hash) << name;
  EXPECT_EQ(listed, std::distance(fs::directory_iterator(out), fs::directory_iterator{}) - 1);
  const Json config = read_json_file((out / "config.json").string());
  EXPECT_EQ(config["quantization_config"]["quant_method"], "gptq");
  EXPECT_EQ(config["quantization_config"]["bits"], 4);
  EXPECT_EQ(config["quantization_config"]["desc_act"], false);
  EXPECT_EQ(config["hidden_size"], 256);
  const auto tokenizer = Tokenizer::from_directory(out);
  EXPECT_EQ(tokenizer->encode("Once upon a time"),
            Tokenizer::from_directory(test::demo_model())->encode("Once upon a time"));
}

TEST(Pipeline, GgufHasCompanionsAndTheModelsTokenizer) {
  test::TemporaryDirectory directory;
  const QuantizeReport report =
      quantize(test::plan_for(test::demo_model(), test::quick_settings("Q8_0")), directory / "demo.gguf");
  EXPECT_TRUE(fs::exists(directory / "demo.pare-report.json"));
  EXPECT_EQ(read_text_file(directory / "demo.SHA256SUMS"), report.output_sha256 + "  demo.gguf\n");
  EXPECT_EQ(sha256_of_file(directory / "demo.gguf"), report.output_sha256);
  const auto checkpoint = Checkpoint::open(directory / "demo.gguf");
  const auto theirs = Tokenizer::from_metadata(checkpoint->metadata(), "demo.gguf");
  const auto ours = Tokenizer::from_directory(test::demo_model());
  const std::string text = read_text_file(test::demo_model() / "eval.txt").substr(0, 4000);
  EXPECT_EQ(theirs->encode(text), ours->encode(text));
}

TEST(Pipeline, FoldedRowsOfGgufComputeTheSame) {
  test::TemporaryDirectory directory;
  quantize(test::plan_for(test::demo_model(), test::quick_settings("F32")), directory / "f32.gguf");
  const Matrix before = logits_of(test::demo_model()), after = logits_of(directory / "f32.gguf");
  for (int64_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before.data()[i], after.data()[i], 2e-4);
}

TEST(Verify, NoticesEveryChangedValue) {
  const Matrix w = [] {
    Matrix m(64, 256);
    for (int64_t i = 0; i < m.size(); ++i) m.data()[i] = std::sin(static_cast<float>(i));
    return m;
  }();
  Quantized q = round_to_nearest(w, Grid(SuperBlockSpec{}), {});
  const Assessment before = assess(q, w);
  EXPECT_LT(before.error / before.power, 0.01);
  q.codes(63, 255) ^= 1;
  EXPECT_NE(assess(q, {}).fingerprint, before.fingerprint);
}

TEST(Pipeline, RealModelsOfOtherArchitectures) {
  test::TemporaryDirectory directory;
  for (const char* name : {"testdata/models/slm4096-gpt2-hf", "testdata/models/stories260K-hf",
                           "testdata/models/tinystories-656k-hf", "golden/base/opt"}) {
    PARE_NEEDS_SHARED(name);
    SCOPED_TRACE(name);
    const auto checkpoint = Checkpoint::open(test::shared(name));
    const Config config = read_config(*checkpoint);
    for (const char* recipe : {"Q8_0", "rtn-int8-g128"}) {
      if (std::string_view(recipe) == "Q8_0" && find_arch(config.architecture).gguf.empty()) continue;
      Settings s = test::quick_settings(recipe);
      s.overwrite = true;
      const bool gguf = s.recipe.container == "gguf";
      if (!gguf) s.recipe.linear = parse_target("int8-row");
      const fs::path out = directory / (gguf ? "x.gguf" : "x");
      quantize(test::plan_for(test::shared(name), s), out);
      std::vector<int32_t> ids;
      for (int32_t i = 0; i < 24; ++i) ids.push_back((i * 37 + 11) % static_cast<int32_t>(config.vocab));
      const Matrix before = Decoder(checkpoint).logits(ids), after = Decoder(Checkpoint::open(out)).logits(ids);
      EXPECT_LT(mean_kl(before, after), 0.05) << recipe;
    }
  }
}

}  // namespace
}  // namespace pare
