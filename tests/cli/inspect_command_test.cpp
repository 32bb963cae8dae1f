#include <gmock/gmock.h>

#include "tests/cli/run_pare.h"

namespace pare::test {
namespace {

using testing::HasSubstr;

TEST(PareInspect, DescribesTheDemoModel) {
  const Json json = pare({"inspect", demo_model(), "--json"}).json();
  EXPECT_EQ(json.at("architecture"), "llama");
  EXPECT_EQ(json.at("format"), "huggingface");
  EXPECT_EQ(json.at("parameters"), 5770496);  // as its model card says
  EXPECT_EQ(json.at("weight_bytes"), 2 * 5770496);
  EXPECT_EQ(json.at("file_bytes"), std::filesystem::file_size(demo_model() / "model.safetensors"));
  EXPECT_EQ(json.at("bits_per_weight"), 16);
  EXPECT_EQ(json.at("context_length"), 512);
  EXPECT_EQ(json.at("quantization").at("scheme"), "none");
  int64_t bytes = 0;
  for (const Json& tensor : json.at("tensors")) {
    EXPECT_EQ(tensor.at("dtype"), "bf16");
    int64_t size = 2;
    for (const Json& extent : tensor.at("shape")) size *= extent.get<int64_t>();
    EXPECT_EQ(tensor.at("bytes"), size) << tensor.at("name");
    bytes += size;
  }
  EXPECT_EQ(bytes, 2 * 5770496);
}

TEST(PareInspect, PrintsACardAndOneLinePerKindOfTensor) {
  const Outcome brief = pare({"inspect", demo_model()});
  EXPECT_EQ(brief.code, 0) << brief.err;
  EXPECT_THAT(brief.out, HasSubstr("16.00 bits per weight"));
  EXPECT_THAT(brief.out, HasSubstr("model.layers.*.mlp.down_proj.weight"));
  EXPECT_THAT(brief.out, testing::Not(HasSubstr("layers.3.")));
  EXPECT_THAT(pare({"inspect", demo_model(), "--tensors"}).out, HasSubstr("model.layers.3.mlp.down_proj.weight"));
}

TEST(PareInspect, AnArchitectureThatPareDoesNotRun) {
  const TemporaryDirectory folder;
  const auto weights = folder / "model.safetensors";
  std::filesystem::copy_file(demo_model() / "model.safetensors", weights);
  write_file(folder / "config.json",
             R"({"model_type": "mystery", "architectures": ["MysteryForCausalLM"], "n_positions": 77})");
  const Outcome got = pare({"inspect", folder.path(), "--json"});
  ASSERT_EQ(got.code, 0) << got.err;
  EXPECT_EQ(got.json().at("architecture"), "mystery");
  EXPECT_EQ(got.json().at("context_length"), 77);
  EXPECT_EQ(got.json().at("parameters"), 5770496);
  EXPECT_THAT(got.json().at("unsupported").get<std::string>(), HasSubstr("LlamaForCausalLM"));  // lists what it knows
  const Outcome run = pare({"run", folder.path(), "--tokens", "1"});
  EXPECT_EQ(run.code, 3);
}

TEST(PareInspect, AGgufFile) {
  PARE_NEEDS_SHARED("testdata/models/llama-2-tiny-random.gguf");
  const auto file = shared("testdata/models/llama-2-tiny-random.gguf");
  const Outcome got = pare({"inspect", file, "--json"});
  ASSERT_EQ(got.code, 0) << got.err;
  const Json json = got.json();
  EXPECT_EQ(json.at("format"), "gguf");
  EXPECT_EQ(json.at("architecture"), "llama");
  EXPECT_EQ(json.at("file_bytes"), std::filesystem::file_size(file));
  for (const Json& tensor : json.at("tensors")) EXPECT_NE(tensor.contains("grid"), tensor.contains("dtype"));
}

TEST(PareInspect, NotAModel) {
  const TemporaryDirectory folder;
  EXPECT_EQ(pare({"inspect", folder.path()}).code, 3);
  write_file(folder / "text", "not a model at all, but long enough to be read as one");
  EXPECT_EQ(pare({"inspect", folder / "text"}).code, 3);
}

}  // namespace
}  // namespace pare::test
