#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "pare/quantize/report_json.h"
#include "tests/quantize/model_files.h"

namespace pare {
namespace {

using testing::HasSubstr;

const PlannedTensor& tensor(const Plan& plan, const std::string& name) {
  for (const PlannedTensor& t : plan.tensors)
    if (t.name == name) return t;
  throw std::out_of_range(name);
}

TEST(Recipes, NamesAreFoldedAndUnique) {
  EXPECT_EQ(find_recipe("q4_k").name, "Q4_K");
  EXPECT_EQ(find_recipe("GPTQ_INT4_G128").name, "gptq-int4-g128");
  for (const Recipe& r : all_recipes()) EXPECT_EQ(&find_recipe(r.name), &r);
  EXPECT_EQ(test::error_of([] { find_recipe("Q9_X"); }).code, ExitCode::usage);
}

TEST(Recipes, GridNamesRoundTrip) {
  for (const char* name :
       {"q4_0", "q8_0", "q4_k", "q6_k", "f16", "bf16", "f32", "int4-g128-sym", "int3-g64-asym", "int8-row-sym"}) {
    EXPECT_EQ(name_of(parse_target(name_of(parse_target(name)))), name_of(parse_target(name))) << name;
  }
  EXPECT_EQ(parse_target("int4-g128"), Target(Grid(AffineSpec{.bits = 4, .group = 128, .symmetric = true})));
  EXPECT_EQ(parse_target("INT3_g64_asym"), Target(Grid(AffineSpec{.bits = 3, .group = 64, .symmetric = false})));
  for (const char* bad : {"int9-g128", "q4", "int4-g0", "int4-gx", "", "int-g128"})
    EXPECT_EQ(test::error_of([&] { parse_target(bad); }).code, ExitCode::usage) << bad;
}

TEST(Recipes, OnesOwnFromAFile) {
  test::TemporaryDirectory directory;
  std::ofstream(directory / "mine.json") << R"({"container": "gguf", "linear": "q6_k", "embedding": "q8_0"})";
  const Recipe r = read_recipe_file(directory / "mine.json");
  EXPECT_EQ(name_of(r.linear), "q6_k");
  EXPECT_EQ(name_of(*r.embedding), "q8_0");
  EXPECT_FALSE(r.head);
  std::ofstream(directory / "bad.json") << R"({"linear": "q6_k", "colour": "red"})";
  EXPECT_THAT(test::error_of([&] { read_recipe_file(directory / "bad.json"); }).what, HasSubstr("colour"));
}

TEST(Plan, TiedHeadTakesTheHeadsGrid) {
  const Plan plan = test::plan_for(test::demo_model(), test::quick_settings("Q4_K"));
  EXPECT_EQ(name_of(tensor(plan, "token_embd.weight").target), "q6_k");
  EXPECT_EQ(name_of(tensor(plan, "blk.3.ffn_down.weight").target), "q4_k");
  EXPECT_EQ(name_of(tensor(plan, "blk.3.ffn_norm.weight").target), "f32");
  EXPECT_FALSE(plan.calibrates());
}

TEST(Plan, OverridesAndSkips) {
  Settings s = test::quick_settings("gptq-int4-g128");
  s.overrides = {{"down_proj", parse_target("int8-g128")}};
  s.skip = {"layers\\.0\\."};
  const Plan plan = test::plan_for(test::demo_model(), s);
  EXPECT_EQ(name_of(tensor(plan, "model.layers.1.mlp.down_proj.weight").target), "int8-g128-sym");
  EXPECT_EQ(name_of(tensor(plan, "model.layers.1.mlp.up_proj.weight").target), "int4-g128-sym");
  EXPECT_FALSE(tensor(plan, "model.layers.0.mlp.down_proj.weight").on_grid());
  EXPECT_FALSE(tensor(plan, "model.embed_tokens.weight").on_grid());
  s.overrides = {{"no_such_tensor", parse_target("f16")}};
  EXPECT_EQ(test::error_of([&] { test::plan_for(test::demo_model(), s); }).code, ExitCode::usage);
}

TEST(Plan, FallsBackWhereColumnsDoNotDivide) {
  PARE_NEEDS_SHARED("golden/logits/llama_gqa_bf16");
  Settings s = test::quick_settings("Q4_K");
  const Plan plan = test::plan_for(test::shared("testdata/models/tinystories-656k-hf"), s);
  const PlannedTensor& t = tensor(plan, "blk.0.attn_q.weight");
  EXPECT_EQ(name_of(t.target), "q5_0");
  EXPECT_THAT(t.reason, HasSubstr("no multiple of 256"));
  EXPECT_THAT(t.reason, HasSubstr("+1.0 bits"));
  EXPECT_FALSE(plan.findings.empty());
  s.strict = true;
  EXPECT_THAT(test::error_of([&] { test::plan_for(test::shared("testdata/models/tinystories-656k-hf"), s); }).what,
              HasSubstr("no multiple of 256"));
}

TEST(Plan, JsonHasTheDocumentedKeys) {
  const Json json = to_json(test::plan_for(test::demo_model(), test::quick_settings("Q4_K")));
  for (const char* key : {"output_bytes", "bits_per_weight", "peak_memory_bytes", "disk_bytes", "estimated_seconds",
                          "tensors", "findings", "runs_in"})
    EXPECT_TRUE(json.contains(key)) << key;
  for (const char* key : {"name", "shape", "from", "grid", "bytes"}) EXPECT_TRUE(json["tensors"][0].contains(key));
  for (const char* key : {"runtime", "loads"}) EXPECT_TRUE(json["runs_in"][0].contains(key));
}

}  // namespace
}  // namespace pare
