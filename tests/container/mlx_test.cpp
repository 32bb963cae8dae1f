// MLX layers made by hand: bit strings along the inputs, a scale and a real bias per group.
#include "tests/container/made_files.h"

namespace pare::test {
namespace {

using ::testing::HasSubstr;

class MlxFile : public MadeFile {
 protected:
  // 2 x 64 codes k % 2^bits, in groups of 32, laid out bit by bit.
  static Tensors layer(int bits, int64_t group = 32) {
    std::string words(static_cast<size_t>(2 * 64 * bits / 8), '\0');
    for (int i = 0; i < 2 * 64; ++i)
      for (int b = 0; b < bits; ++b) {
        const int at = i * bits + b;
        if (code(bits, i) >> b & 1) words[static_cast<size_t>(at / 8)] |= static_cast<char>(1 << (at % 8));
      }
    std::string scales, biases;
    const int64_t groups = 64 / group;
    for (int i = 0; i < 2 * groups; ++i) {
      scales += raw(f32_to_bf16(0.5f + static_cast<float>(i)));
      biases += raw(f32_to_bf16(-3.25f * static_cast<float>(i)));
    }
    return {{"m.weight", {DType::u32, {2, 64 * bits / 32}, words}},
            {"m.scales", {DType::bf16, {2, groups}, scales}},
            {"m.biases", {DType::bf16, {2, groups}, biases}}};
  }
  static int code(int bits, int i) { return (5 * i + i / 7) % (1 << bits); }
  static std::string config(int bits, const std::string& more = "") {
    return R"({"quantization":{"group_size":32,"bits":)" + std::to_string(bits) + more + "}}";
  }
};

TEST_F(MlxFile, EveryWidthIsAStringOfBits) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    SCOPED_TRACE(bits);
    put(layer(bits), config(bits));
    const Quantized q = load();
    EXPECT_EQ(name_of(q.grid()), "int" + std::to_string(bits) + "-g32-bias");
    const Matrix values = dequantize(q);
    for (int i = 0; i < 2 * 64; ++i) {
      const auto g = static_cast<float>(i / 32);
      ASSERT_EQ(values.data()[i], (0.5f + g) * static_cast<float>(code(bits, i)) - 3.25f * g) << i;
    }
    // The bytes come back, and config.json says what MLX looks for.
    const auto again = written("mlx", q, DType::bf16, "out" + std::to_string(bits));
    for (const auto& [name, t] : layer(bits)) EXPECT_TRUE(text_of(again->find(name)->bytes) == t.bytes) << name;
    EXPECT_EQ(again->config()["quantization"],
              Json::parse(R"({"group_size":32,"bits":)" + std::to_string(bits) + R"(,"mode":"affine"})"));
    EXPECT_EQ(again->config()["quantization_config"], again->config()["quantization"]);
  }
}

TEST_F(MlxFile, LayersMayDifferFromTheRest) {
  put(layer(6), config(4, R"(,"m":{"group_size":32,"bits":6})"));
  EXPECT_EQ(name_of(load().grid()), "int6-g32-bias");
}

TEST_F(MlxFile, WhatContradictsItselfIsRefused) {
  EXPECT_THAT(refusal(layer(4), config(5)), HasSubstr("contradict"));
  EXPECT_THAT(refusal(layer(4), config(7)), HasSubstr("contradict"));
  EXPECT_THAT(refusal(layer(4), config(0)), HasSubstr("contradict"));
  Tensors bad = layer(4);
  bad["m.biases"] = {DType::bf16, {2, 1}, bad["m.biases"].bytes.substr(0, 4)};
  EXPECT_THAT(refusal(bad, config(4)), HasSubstr("m.biases"));
  bad = layer(4);
  bad["m.scales"].bytes[1] = '\x7F', bad["m.scales"].bytes[0] = '\x80';
  EXPECT_THAT(refusal(bad, config(4)), HasSubstr("not finite"));
}

TEST_F(MlxFile, ExceptionsAreWrittenByName) {
  OutputPlan plan;
  const Grid four = AffineSpec{.bits = 4, .group = 64, .symmetric = false, .biased = true};
  const Grid eight = AffineSpec{.bits = 8, .group = 32, .symmetric = false, .biased = true};
  plan.tensors = {{"a.weight", {2, 64}, four, DType::f16, false},
                  {"b.weight", {2, 64}, eight, DType::f16, false},
                  {"c.weight", {2, 64}, four, DType::f16, false}};
  auto writer = find_container("mlx").create(directory_ / "out", plan, false);
  for (const OutputTensor& t : plan.tensors) writer->add(t.name, random_quantized(*t.grid, {2, 64}, 1));
  writer->commit();
  const auto read = Checkpoint::open(directory_ / "out");
  EXPECT_EQ(
      read->config()["quantization"],
      Json::parse(R"({"group_size":64,"bits":4,"mode":"affine","b":{"group_size":32,"bits":8,"mode":"affine"}})"));
  EXPECT_TRUE(*read->grid_of_weight("b.weight") == eight);
}

}  // namespace
}  // namespace pare::test
