// From any format to any other: what is called lossless is compared again by pare diff, which shares only the readers.
#include "pare/quantize/conversion.h"

#include <gmock/gmock.h>

#include <fstream>

#include "pare/base/mapped_file.h"
#include "pare/convert/diff.h"
#include "pare/tokenizer/tokenizer.h"
#include "tests/quantize/model_files.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

QuantizeReport convert(const fs::path& from, const fs::path& to, ConversionSettings settings) {
  settings.dequantize = settings.dequantize || settings.container == "safetensors";
  return quantize(plan_conversion(Checkpoint::open(from), settings), to);
}
Diff between(const fs::path& a, const fs::path& b) { return diff(Checkpoint::open(a), Checkpoint::open(b)); }

class Conversion : public testing::Test {
 protected:
  fs::path make(const std::string& recipe, const std::string& name) {
    quantize(plan_for(demo_model(), quick_settings(recipe)), folder_ / name);
    return folder_ / name;
  }
  TemporaryDirectory folder_;
};

TEST_F(Conversion, ARoundOfFormatsWithoutLoss) {
  const fs::path start = make("rtn-int4-g128", "start");
  fs::path last = start;
  for (const char* container : {"gguf", "gptq", "awq", "gptq_v2", "gguf"}) {
    const fs::path next = folder_ / (last.filename().string() + "-" + container);
    EXPECT_TRUE(convert(last, next, {.container = container}).lossless()) << container;
    EXPECT_TRUE(between(start, next).equal()) << container;
    last = next;
  }
  EXPECT_THAT(Checkpoint::open(last)->quantization(), HasSubstr("q4_0"));
}

TEST_F(Conversion, WhatDoesNotFitIsQuantizedAgainAndSaid) {
  const fs::path q4_k = make("Q4_K", "q.gguf");
  const QuantizeReport report = convert(q4_k, folder_ / "awq", {.container = "awq"});
  EXPECT_FALSE(report.lossless());
  const Diff seen = between(q4_k, folder_ / "awq");
  int changed = 0;
  for (const TensorReport& r : report.tensors)
    for (const DiffTensor& t : seen.tensors)
      if (t.b.name == r.name) {
        EXPECT_EQ(t.different, r.changed) << r.name;
        EXPECT_NEAR(t.relative_error, r.weight_error, 1e-6 * r.weight_error) << r.name;
        EXPECT_LT(t.relative_error, 0.02) << r.name;
        changed += r.changed > 0 ? 1 : 0;
      }
  EXPECT_GT(changed, 10);
  EXPECT_THAT(error_of([&] { convert(q4_k, folder_ / "x", {.container = "awq", .strict = true}); }).what,
              HasSubstr("does not contain"));
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

TEST_F(Conversion, DequantizedFloatsHoldEveryValueOrSayHowManyDoNot) {
  const fs::path q4_k = make("Q4_K", "q.gguf");
  EXPECT_TRUE(convert(q4_k, folder_ / "f32", {.container = "safetensors", .dtype = DType::f32}).lossless());
  EXPECT_TRUE(between(q4_k, folder_ / "f32").equal());
  EXPECT_EQ(Checkpoint::open(folder_ / "f32")->config()["torch_dtype"], "float32");
  const QuantizeReport rounded = convert(q4_k, folder_ / "bf16", {.container = "safetensors", .dtype = DType::bf16});
  EXPECT_FALSE(rounded.lossless());
  const Diff seen = between(q4_k, folder_ / "bf16");
  EXPECT_LT(seen.relative_error, 1e-5);
  EXPECT_GT(seen.relative_error, 0);
}

// Names, order of rows, configuration and tokenizer: away and back.
TEST_F(Conversion, AFloatModelThroughGgufAndBack) {
  EXPECT_TRUE(convert(demo_model(), folder_ / "d.gguf", {.container = "gguf"}).lossless());
  EXPECT_TRUE(convert(folder_ / "d.gguf", folder_ / "back", {.container = "safetensors"}).lossless());
  EXPECT_TRUE(between(demo_model(), folder_ / "back").equal());
  const auto before = Checkpoint::open(demo_model()), after = Checkpoint::open(folder_ / "back");
  for (const std::string& name : before->weights()) {
    ASSERT_NE(after->find(name), nullptr) << name;
    EXPECT_EQ(after->find(name)->type, before->find(name)->type) << name;
  }
  const Config a = read_config(*before), b = read_config(*after);
  EXPECT_EQ(a.rope.theta, b.rope.theta);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.tied_head, b.tied_head);
  EXPECT_EQ(a.eos_ids, b.eos_ids);
  EXPECT_EQ(a.context, b.context);
  EXPECT_EQ(a.hf_class, b.hf_class);
  const auto ours = Tokenizer::from_directory(demo_model()), theirs = Tokenizer::from_directory(folder_ / "back");
  const std::string text = read_text_file(demo_model() / "eval.txt").substr(0, 20000) + " 1234 \n\n\t 'll déjà 你好";
  EXPECT_EQ(ours->encode(text), theirs->encode(text));
  EXPECT_EQ(ours->adds_bos(), theirs->adds_bos());
  // And the vocabulary of the way back is the one that went.
  EXPECT_TRUE(convert(folder_ / "back", folder_ / "again.gguf", {.container = "gguf"}).lossless());
  const auto first = Checkpoint::open(folder_ / "d.gguf"), second = Checkpoint::open(folder_ / "again.gguf");
  for (const auto& [key, value] : first->metadata().entries())
    if (key != "general.name" && key != "tokenizer.ggml.add_sep_token") {  // of pairs of texts
      const MetaValue* other = second->metadata().find(key);
      ASSERT_NE(other, nullptr) << key;
      EXPECT_TRUE(*other == value) << key;
    }
}

TEST_F(Conversion, QuantizingAGgufOfFloatsIsQuantizingTheModel) {
  convert(demo_model(), folder_ / "d.gguf", {.container = "gguf"});
  for (const char* recipe : {"Q4_K", "rtn-int4-g128", "gptq-int4-g128"}) {
    const std::string name = recipe;
    const Plan plan = plan_for(folder_ / "d.gguf", quick_settings(recipe));
    quantize(plan, folder_ / (name + "-from-gguf"));
    make(recipe, name);
    const Diff same = between(folder_ / name, folder_ / (name + "-from-gguf"));
    if (name != "gptq-int4-g128") {
      EXPECT_TRUE(same.equal()) << recipe;
    } else {  // q and k have their rows in another order, which moves sums in the last bit
      EXPECT_LT(same.relative_error, 0.02) << recipe;
    }
  }
  EXPECT_THAT(error_of([&] { plan_for(folder_ / "Q4_K", quick_settings("Q4_0")); }).what,
              HasSubstr("quantized already"));
}

TEST_F(Conversion, FloatsChangeTheirType) {
  EXPECT_TRUE(convert(demo_model(), folder_ / "f32", {.container = "safetensors", .dtype = DType::f32}).lossless());
  EXPECT_TRUE(between(demo_model(), folder_ / "f32").equal());
  const QuantizeReport halves =
      convert(demo_model(), folder_ / "f16", {.container = "safetensors", .dtype = DType::f16});
  EXPECT_EQ(halves.lossless(), between(demo_model(), folder_ / "f16").equal());
  // Shards, and back into one file.
  convert(demo_model(), folder_ / "shards", {.container = "safetensors", .max_shard_bytes = 3 << 20});
  EXPECT_TRUE(fs::exists(folder_ / "shards/model.safetensors.index.json"));
  convert(folder_ / "shards", folder_ / "merged", {.container = "safetensors"});
  EXPECT_TRUE(fs::exists(folder_ / "merged/model.safetensors"));
  EXPECT_TRUE(between(demo_model(), folder_ / "merged").equal());
}

TEST_F(Conversion, RefusedWhilePlanning) {
  const fs::path gptq = make("rtn-int4-g128", "gptq");
  const auto refusal = [&](ConversionSettings s) { return error_of([&] { convert(gptq, folder_ / "x", s); }); };
  EXPECT_THAT(refusal({.container = "gptq", .grid = BlockSpec{}}).what, HasSubstr("cannot hold this matrix"));
  EXPECT_THAT(refusal({.container = "nothing"}).what, HasSubstr("unknown container"));
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

// ---- checkpoints of the reference tools

// These checkpoints have no tokenizer; that of their base goes beside them.
fs::path with_tokenizer(const std::string& name, const TemporaryDirectory& folder) {
  const fs::path to = folder / "source";
  fs::create_directories(to);
  for (const fs::path& from : {fs::absolute(shared("golden") / name), fs::absolute(shared("golden/base/llama"))})
    for (const auto& entry : fs::directory_iterator(from)) {
      const std::string file = entry.path().filename().string();
      const bool wanted = from.parent_path().filename() == "base"
                              ? file.starts_with("tokenizer")
                              : file.ends_with(".json") || file.starts_with("model");
      if (wanted && entry.is_regular_file() && !fs::exists(to / file)) fs::create_symlink(entry.path(), to / file);
    }
  return to;
}

class GoldenConversion : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Tools, GoldenConversion,
                         testing::Values("gptq/llama_2b_asym_g32", "gptq/llama_3b_sym_g128", "gptq/llama_4b_asym_g128",
                                         "gptq/llama_4b_sym_g128", "gptq/llama_4b_sym_g128_gar",
                                         "gptq/llama_4b_sym_g128_v2", "gptq/llama_4b_sym_gcol",
                                         "gptq/llama_8b_asym_gcol", "gptq/llama_autoround_4b_sym_g128_negative_scales",
                                         "awq/llama_gemm_g128", "awq/llama_gemm_g32"),
                         [](const auto& at) {
                           std::string name = at.param;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

TEST_P(GoldenConversion, ToEveryContainer) {
  PARE_NEEDS_SHARED(std::string("golden/") + GetParam());
  TemporaryDirectory folder;
  const fs::path from = with_tokenizer(GetParam(), folder);
  for (const char* container : {"gptq", "gptq_v2", "awq", "gguf", "safetensors"}) {
    SCOPED_TRACE(container);
    const fs::path to = folder / container;
    ConversionSettings settings{.container = container};
    if (settings.container == "safetensors") settings.dtype = DType::f32;
    const QuantizeReport report = convert(from, to, settings);
    const Diff seen = between(from, to);
    EXPECT_EQ(report.lossless(), seen.equal());
    EXPECT_LT(seen.relative_error, 0.01);
    const bool same_family = settings.container.starts_with("gptq_v2") || settings.container == "safetensors";
    EXPECT_TRUE(report.lossless() || !same_family);
    // Integers of four bits at most, symmetric or not, fit into q5_0; eight with zero points into nothing.
    const auto grids = named_grids();
    const bool q5_0 = std::any_of(grids.begin(), grids.end(), [](const Grid& g) { return name_of(g) == "q5_0"; });
    const std::string name = GetParam();
    const bool fits = name.find("asym") == std::string::npos && name.find("awq") == std::string::npos;
    if (settings.container == "gguf" && (fits || (q5_0 && !name.ends_with("8b_asym_gcol")))) {
      EXPECT_TRUE(report.lossless());
    }
  }
}

TEST(GoldenOrder, IsKeptWhereItCanBeAndElseRefusedWhilePlanning) {
  PARE_NEEDS_SHARED("golden/gptq/llama_4b_sym_g32_act");
  TemporaryDirectory folder;
  const fs::path from = with_tokenizer("gptq/llama_4b_sym_g32_act", folder);
  EXPECT_TRUE(convert(from, folder / "v2", {.container = "gptq_v2"}).lossless());
  EXPECT_TRUE(between(from, folder / "v2").equal());
  for (const char* container : {"awq", "gguf"}) {
    const ErrorInfo refused = error_of([&] { convert(from, folder / container, {.container = container}); });
    EXPECT_THAT(refused.what, HasSubstr("order of this matrix's columns"));
    EXPECT_THAT(refused.remedy, HasSubstr("--dequantize"));
    EXPECT_FALSE(fs::exists(folder / container));
  }
  EXPECT_TRUE(
      convert(from, folder / "f.gguf", {.container = "gguf", .dtype = DType::f32, .dequantize = true}).lossless());
  EXPECT_TRUE(between(from, folder / "f.gguf").equal());
}

}  // namespace
}  // namespace pare::test
