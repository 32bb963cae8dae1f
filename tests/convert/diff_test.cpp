#include "pare/convert/diff.h"

#include <gmock/gmock.h>

#include "tests/quantize/model_files.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class DiffOf : public testing::Test {
 protected:
  // The demo model, quantized by a recipe.
  QuantizeReport make(const std::string& recipe, const fs::path& to) {
    return quantize(plan_for(demo_model(), quick_settings(recipe)), to);
  }
  static Diff between(const fs::path& a, const fs::path& b) { return diff(Checkpoint::open(a), Checkpoint::open(b)); }
  TemporaryDirectory folder_;
};

// GGUF has other names, and the rows of q and k in another order.
TEST_F(DiffOf, AFloatModelAndItsGguf) {
  make("F32", folder_ / "f32.gguf");
  const Diff result = between(demo_model(), folder_ / "f32.gguf");
  EXPECT_TRUE(result.equal());
  EXPECT_EQ(result.relative_error, 0);
  EXPECT_EQ(result.tensors.size(), Checkpoint::open(demo_model())->weights().size());
  EXPECT_TRUE(result.notes.empty());
  bool renamed = false;
  for (const DiffTensor& t : result.tensors)
    renamed = renamed || (t.a.name.ends_with("q_proj.weight") && t.b.name.ends_with("attn_q.weight"));
  EXPECT_TRUE(renamed);
}

TEST_F(DiffOf, AQuantizedModelHasTheErrorThatItsReportNames) {
  const QuantizeReport report = make("Q4_K", folder_ / "q.gguf");
  const Diff result = between(demo_model(), folder_ / "q.gguf");
  EXPECT_FALSE(result.equal());
  int compared = 0;
  for (const TensorReport& r : report.tensors)
    for (const DiffTensor& t : result.tensors) {
      if (t.b.name != r.name || r.weight_error == 0) continue;
      EXPECT_NEAR(t.relative_error, r.weight_error, 1e-6 * r.weight_error) << r.name;
      EXPECT_NEAR(2 * (1 - t.cosine), t.relative_error, 0.1 * t.relative_error) << r.name;  // for small angles
      EXPECT_EQ(t.b.type, r.target);
      ++compared;
    }
  EXPECT_GT(compared, 5);
  // Two quantized forms of one model, HF and GGUF, against each other.
  make("rtn-int4-g128", folder_ / "gptq");
  const Diff quantized = between(folder_ / "gptq", folder_ / "q.gguf");
  EXPECT_TRUE(quantized.only_in_a.empty() && quantized.only_in_b.empty());
  EXPECT_GT(quantized.relative_error, 0);
  EXPECT_LT(quantized.relative_error, 0.05);
}

TEST_F(DiffOf, OneValueThatWasChanged) {
  copy_model(folder_ / "m");
  const auto before = Checkpoint::open(demo_model());
  const std::string name = before->weights().at(3);
  const Matrix values = std::get<FloatTensor>(before->load(name)).to_matrix();
  poke_bf16(folder_ / "m", name, 5, values.data()[5] + 1);
  const Diff result = between(demo_model(), folder_ / "m");
  EXPECT_FALSE(result.equal());
  for (const DiffTensor& t : result.tensors) EXPECT_EQ(t.different, t.a.name == name ? 1 : 0) << t.a.name;
  EXPECT_NEAR(result.tensors.at(3).largest, 1, 0.01);
}

TEST_F(DiffOf, UnknownArchitecturesAreMatchedByName) {
  copy_model(folder_ / "m", [](Json& config) { config["architectures"] = {"NobodyForCausalLM"}; });
  const Diff result = between(demo_model(), folder_ / "m");
  EXPECT_TRUE(result.equal());
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_THAT(result.notes[0], HasSubstr("by name alone"));
  make("F32", folder_ / "f32.gguf");
  EXPECT_THAT(error_of([&] { between(folder_ / "m", folder_ / "f32.gguf"); }).what, HasSubstr("no tensor in common"));
}

}  // namespace
}  // namespace pare::test
