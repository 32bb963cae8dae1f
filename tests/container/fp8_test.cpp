// Checkpoints that are published in 8-bit or 4-bit floats: DeepSeek's blocks, gpt-oss' experts.
#include <cmath>

#include "tests/container/made_files.h"

namespace pare::test {
namespace {

using ::testing::HasSubstr;

const char* const kFp8 = R"({"quantization_config":{"quant_method":"fp8","fmt":"e4m3","weight_block_size":[128,128]}})";

class FloatFiles : public MadeFile {
 protected:
  // 192 x 320: the last block is cut both ways.
  static Tensors blocks() {
    std::string codes, scales;
    for (int i = 0; i < 192 * 320; ++i) codes += static_cast<char>(i % 127 + (i % 5 == 0 ? 128 : 0));
    for (int i = 0; i < 2 * 3; ++i) scales += raw(0.25f + static_cast<float>(i));
    return {{"m.weight", {DType::f8_e4m3, {192, 320}, codes}}, {"m.weight_scale_inv", {DType::f32, {2, 3}, scales}}};
  }
};

TEST_F(FloatFiles, BlocksShareAScaleAlsoWhereTheyAreCut) {
  put(blocks(), kFp8);
  const Quantized q = load();
  EXPECT_EQ(Checkpoint::open(directory_.path())->quantization().substr(0, 3), "fp8");
  const Matrix values = dequantize(q);
  for (int r = 0; r < 192; ++r)
    for (int c = 0; c < 320; ++c) {
      const int i = r * 320 + c, code = i % 127;
      const float size = code < 8 ? std::ldexp(static_cast<float>(code), -9)
                                  : std::ldexp(static_cast<float>(8 + code % 8), code / 8 - 10);
      const float scale = 0.25f + static_cast<float>(r / 128 * 3 + c / 128);
      ASSERT_EQ(values(r, c), scale * (i % 5 == 0 ? -size : size)) << r << " " << c;
    }
}

TEST_F(FloatFiles, FaultyBlocksAreRefused) {
  Tensors bad = blocks();
  bad["m.weight_scale_inv"] = {DType::f32, {3, 2}, bad["m.weight_scale_inv"].bytes};
  EXPECT_THAT(refusal(bad, kFp8), HasSubstr("m.weight_scale_inv"));
  bad = blocks();
  bad["m.weight"].bytes[70] = '\x7F';
  EXPECT_THAT(refusal(bad, kFp8), HasSubstr("not a number"));
  bad = blocks();
  bad.erase("m.weight_scale_inv");
  EXPECT_THAT(refusal(bad, kFp8), HasSubstr("incomplete"));
  EXPECT_THAT(refusal(blocks(), R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[128,64]}})"),
              HasSubstr("blocks"));
  EXPECT_THAT(refusal(blocks(), R"({"quantization_config":{"quant_method":"fp8","fmt":"e5m2"}})"), HasSubstr("e5m2"));
}

TEST_F(FloatFiles, ExpertsOfGptOss) {
  const char* config = R"({"quantization_config":{"quant_method":"mxfp4"}})";
  std::string codes, scales;
  for (int i = 0; i < 2 * 3 * 2 * 16; ++i) codes += static_cast<char>(i * 7);
  for (int i = 0; i < 2 * 3 * 2; ++i) scales += static_cast<char>(120 + i);
  const Tensors experts = {{"mlp.experts.gate_up_proj_blocks", {DType::u8, {2, 3, 2, 16}, codes}},
                           {"mlp.experts.gate_up_proj_scales", {DType::u8, {2, 3, 2}, scales}}};
  put(experts, config);
  const Quantized q = load("mlp.experts.gate_up_proj");
  EXPECT_EQ(q.shape(), (Shape{6, 64}));
  EXPECT_EQ(name_of(q.grid()), "mxfp4");
  const Matrix values = dequantize(q);
  const float sizes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (int i = 0; i < 6 * 64; ++i) {
    const int byte = static_cast<unsigned char>(codes[static_cast<size_t>(i / 2)]),
              code = i % 2 ? byte >> 4 : byte & 15;
    const float scale = std::ldexp(1.0f, 120 + i / 32 - 127);
    ASSERT_EQ(values.data()[i], scale * (code & 8 ? -sizes[code & 7] : sizes[code & 7])) << i;
  }
  Tensors bad = experts;
  bad["mlp.experts.gate_up_proj_scales"].bytes[3] = '\xFF';
  EXPECT_THAT(refusal(bad, config, "mlp.experts.gate_up_proj"), HasSubstr("not a number"));
  bad.erase("mlp.experts.gate_up_proj_scales");
  EXPECT_THAT(refusal(bad, config, "mlp.experts.gate_up_proj"), HasSubstr("incomplete"));
}

}  // namespace
}  // namespace pare::test
