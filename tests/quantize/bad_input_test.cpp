// One clear error for everything that can be wrong, and nothing left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>

#include "pare/base/interrupt.h"
#include "pare/base/threads.h"
#include "tests/quantize/model_files.h"

namespace pare {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using testing::HasSubstr;
using testing::IsEmpty;

class BadInput : public testing::Test {
 protected:
  void TearDown() override {
    clear_interrupt();
    const fs::path out = directory_ / "out";
    for (const auto& entry : fs::directory_iterator(directory_.path()))
      EXPECT_FALSE(entry.path().filename().string().starts_with("out")) << "left behind: " << entry.path();
  }
  ErrorInfo quantize_fails(const fs::path& model, const Settings& settings, const char* out = "out.gguf",
                           const Observer& observer = {}) {
    return error_of([&] { quantize(test::plan_for(model, settings), directory_ / out, observer); });
  }
  test::TemporaryDirectory directory_;
};

TEST_F(BadInput, NotANumber) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    test::copy_model(directory_ / "model");
    test::poke_bf16(directory_ / "model", "model.layers.2.mlp.up_proj.weight", 256 * 3 + 17, bad);
    for (const char* recipe : {"Q4_0", "F16"}) {
      const ErrorInfo e = quantize_fails(directory_ / "model", test::quick_settings(recipe));
      EXPECT_THAT(e.what, HasSubstr("not finite"));
      EXPECT_THAT(e.where, HasSubstr("model.layers.2.mlp.up_proj.weight at row 3, column 17"));
      EXPECT_EQ(e.code, ExitCode::bad_input);
    }
  }
}

TEST_F(BadInput, NotANumberInACalibratedLayer) {
  test::copy_model(directory_ / "model");
  test::poke_bf16(directory_ / "model", "model.layers.0.self_attn.k_proj.weight", 5, NAN);
  const ErrorInfo e = quantize_fails(directory_ / "model", test::quick_settings("gptq-int4-g128"), "out");
  EXPECT_EQ(e.code, ExitCode::bad_input);
  EXPECT_THAT(e.where + e.what, HasSubstr("finite"));
}

TEST_F(BadInput, GroupThatDoesNotDivide) {
  Settings s = test::quick_settings("gptq-int4-g128");
  s.recipe.linear = parse_target("int4-g96");
  const ErrorInfo e = error_of([&] { test::plan_for(test::demo_model(), s); });
  EXPECT_THAT(e.what, HasSubstr("does not divide"));
  EXPECT_THAT(e.expected, HasSubstr("256: 16, 32, 64, 128, 256"));
  EXPECT_EQ(e.got, "96");
}

TEST_F(BadInput, UnknownArchitectureListsTheKnown) {
  test::copy_model(directory_ / "model",
                   [](Json& c) { c["architectures"] = {"MambaForCausalLM"}, c["model_type"] = "mamba"; });
  const ErrorInfo e = error_of([&] { test::plan_for(directory_ / "model", test::quick_settings("Q8_0")); });
  EXPECT_THAT(e.expected + e.remedy, HasSubstr("LlamaForCausalLM"));
  EXPECT_THAT(e.expected + e.remedy, HasSubstr("GPT2LMHeadModel"));
}

TEST_F(BadInput, ConfigThatContradictsTheShapes) {
  test::copy_model(directory_ / "model", [](Json& c) { c["intermediate_size"] = 1024; });
  for (const char* recipe : {"Q8_0", "gptq-int4-g128"}) {
    const ErrorInfo e = error_of([&] { test::plan_for(directory_ / "model", test::quick_settings(recipe)); });
    EXPECT_EQ(e.code, ExitCode::bad_input) << recipe;
    EXPECT_THAT(e.expected, HasSubstr("1024")) << recipe;
    EXPECT_THAT(e.got, HasSubstr("768")) << recipe;
  }
}

TEST_F(BadInput, MissingTensor) {
  test::copy_model(directory_ / "model", [](Json& c) { c["num_hidden_layers"] = 7; });
  const ErrorInfo e = error_of([&] { test::plan_for(directory_ / "model", test::quick_settings("Q8_0")); });
  EXPECT_THAT(e.where + e.what + e.expected, HasSubstr("model.layers.6"));
}

TEST_F(BadInput, CalibrationText) {
  std::ofstream(directory_ / "empty.txt") << " \n\n";
  std::ofstream(directory_ / "latin1.txt") << "caf\xe9 au lait, " << std::string(500, 'x');
  Settings s = test::quick_settings("gptq-int4-g128");
  s.calibration.data = directory_ / "empty.txt";
  EXPECT_THAT(quantize_fails(test::demo_model(), s, "out").what, HasSubstr("empty"));
  s.calibration.data = directory_ / "latin1.txt";
  const ErrorInfo e = quantize_fails(test::demo_model(), s, "out");
  EXPECT_THAT(e.what, HasSubstr("not UTF-8"));
  EXPECT_THAT(e.where, HasSubstr("at byte 3"));
  s.calibration.data = directory_ / "missing.txt";
  EXPECT_THAT(quantize_fails(test::demo_model(), s, "out").what, HasSubstr("cannot open"));
}

TEST_F(BadInput, ExistingOutputIsKept) {
  const fs::path kept = directory_ / "kept.gguf";
  std::ofstream(kept) << "precious";
  const ErrorInfo e = quantize_fails(test::demo_model(), test::quick_settings("Q8_0"), "kept.gguf");
  EXPECT_THAT(e.what, HasSubstr("exists"));
  EXPECT_THAT(e.remedy, HasSubstr("--force"));
  std::string content;
  std::ifstream(kept) >> content;
  EXPECT_EQ(content, "precious");
}

TEST_F(BadInput, FolderMissing) {
  EXPECT_THAT(quantize_fails(test::demo_model(), test::quick_settings("Q8_0"), "nowhere/out.gguf").what,
              HasSubstr("does not exist"));
}

TEST_F(BadInput, TooLittleMemory) {
  Settings s = test::quick_settings("gptq-int4-g128");
  s.max_memory = int64_t{8} << 20;
  const ErrorInfo e = quantize_fails(test::demo_model(), s, "out");
  EXPECT_EQ(e.code, ExitCode::no_room);
  EXPECT_EQ(e.where, "--max-ram");
}

// A limit on file size makes writing fail as a full disk does.
TEST_F(BadInput, FullDisk) {
  std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit before {};
  getrlimit(RLIMIT_FSIZE, &before);
  for (const auto& [recipe, out] : {std::pair{"Q8_0", "out.gguf"}, std::pair{"rtn-int4-g128", "out"}}) {
    const struct rlimit small = {1 << 20, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    const ErrorInfo e = quantize_fails(test::demo_model(), test::quick_settings(recipe), out);
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(e.code, ExitCode::no_room) << recipe << ": " << e.what;
    EXPECT_THAT(e.what, HasSubstr("full")) << recipe;
  }
}

TEST_F(BadInput, InterruptedInTheMiddle) {
  catch_interrupts();
  for (const int signal : {SIGINT, SIGTERM})
    for (const auto& [recipe, out] : {std::pair{"Q8_0", "out.gguf"}, std::pair{"gptq-int4-g128", "out"}}) {
      Observer observer;
      observer.progress = [&](const Progress& p) {
        if (p.stage == "quantize" && p.done == 3) std::raise(signal);
      };
      const ErrorInfo e = quantize_fails(test::demo_model(), test::quick_settings(recipe), out, observer);
      EXPECT_EQ(e.code, ExitCode::interrupted);
      clear_interrupt();
      catch_interrupts();
    }
}

TEST_F(BadInput, QuantizedAlready) {
  quantize(test::plan_for(test::demo_model(), test::quick_settings("rtn-int4-g128")), directory_ / "gptq");
  const ErrorInfo e = error_of([&] { test::plan_for(directory_ / "gptq", test::quick_settings("Q8_0")); });
  EXPECT_THAT(e.what, HasSubstr("quantized already"));
}

TEST_F(BadInput, ContainerThatCannotHoldTheGrid) {
  Settings s = test::quick_settings("Q4_K");
  s.recipe.container = "gptq";
  EXPECT_THAT(error_of([&] { test::plan_for(test::demo_model(), s); }).what, HasSubstr("cannot hold"));
  s = test::quick_settings("gptq-int4-g128");
  s.recipe.container = "gguf";
  EXPECT_THAT(error_of([&] { test::plan_for(test::demo_model(), s); }).what, HasSubstr("cannot hold"));
  s = test::quick_settings("Q4_K");
  s.recipe.method = Method::gptq;
  s.stored_order = s.strict = true;
  EXPECT_EQ(error_of([&] { test::plan_for(test::demo_model(), s); }).where, "--desc-act");
}

}  // namespace
}  // namespace pare
