// bitsandbytes layers: single weights of the reference, also with blocks that run over the ends of rows.
#include "tests/container/made_files.h"

namespace pare::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const char* const kConfig = R"({"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true}})";

class BnbFile : public MadeFile {};

TEST_F(BnbFile, SingleWeightsEqualTheReference) {
  PARE_NEEDS_SHARED("golden/bnb/w96x160_f32.safetensors");
  int compared = 0;
  for (const std::string file : {"w96x160_f32", "w96x160_f16", "w64x128_bf16", "wide128x384_bf16", "odd7x33_f32",
                                 "edge4x64_f32", "edge_fp4_4x64_f32"}) {
    const auto path = shared("golden/bnb/" + file + ".safetensors");
    for (const std::string setting :
         {"nf4.b64", "nf4.b64.dq", "nf4.b128", "nf4.b128.dq", "fp4.b64", "fp4.b64.dq", "fp4.b128", "fp4.b128.dq"}) {
      SCOPED_TRACE(file + " " + setting);
      Tensors layer = golden(path, setting + ".weight", "m.weight");
      if (layer.empty()) continue;
      const Tensors others = golden(path, setting + ".", "");
      put(layer, kConfig);
      const Quantized q = load();
      const Matrix values = dequantize(q);
      const Stored& expected = others.at("dequantized");
      const std::vector<float> tools = floats(expected);
      for (size_t i = 0; i < tools.size(); ++i) {
        const float ours = values.data()[i];
        const float rounded = expected.type == DType::f16    ? round_to_f16(ours)
                              : expected.type == DType::bf16 ? bf16_to_f32(f32_to_bf16(ours))
                                                             : ours;
        ASSERT_EQ(rounded, tools[i]) << i;
      }
      ++compared;
      // Blocks of whole rows can be written again, byte by byte but for the length of the JSON.
      if (q.shape().cols % (setting.find("b64") != std::string::npos ? 64 : 128) != 0) continue;
      const auto again = written("bnb", q, expected.type, file + setting);
      for (const auto& [name, t] : layer)
        if (name.find("quant_state") == std::string::npos)
          EXPECT_TRUE(text_of(again->find(name)->bytes) == t.bytes) << name;
        else
          EXPECT_EQ(Json::parse(text_of(again->find(name)->bytes)), Json::parse(t.bytes));
    }
  }
  EXPECT_GE(compared, 40);
}

TEST_F(BnbFile, Int8IsTheReferencesWithinARounding) {
  PARE_NEEDS_SHARED("golden/bnb/int8_w96x160_f16.safetensors");
  for (const std::string file : {"int8_w96x160_f16", "int8_w64x128_bf16"}) {
    const Tensors all = golden(shared("golden/bnb/" + file + ".safetensors"), "", "");
    put({{"m.weight", all.at("CB")}, {"m.SCB", all.at("SCB")}},
        R"({"quantization_config":{"quant_method":"bitsandbytes","load_in_8bit":true}})");
    const Quantized q = load();
    EXPECT_EQ(name_of(q.grid()), "llm-int8");
    const Matrix values = dequantize(q);
    const std::vector<float> tools = floats(all.at("dequantized"));
    for (size_t i = 0; i < tools.size(); ++i)
      ASSERT_NEAR(values.data()[i], tools[i], 3e-7f * std::abs(tools[i])) << i;  // two roundings in another order
    const auto again = written("bnb", q, DType::f16, file);
    EXPECT_TRUE(text_of(again->find("m.weight")->bytes) == all.at("CB").bytes);
    EXPECT_TRUE(text_of(again->find("m.SCB")->bytes) == all.at("SCB").bytes);
    EXPECT_TRUE(again->config()["quantization_config"]["load_in_8bit"]);
  }
}

// The worked example of the specification (formats.md §1.2): bytes from a formula.
TEST_F(BnbFile, TheWorkedExampleOfTheSpecification) {
  const std::string codes = from_hex("17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e1");
  std::string map, absmax = raw(0.78125f);
  const float nf4[] = {-1.0f,
                       -0.6961928009986877f,
                       -0.5250730514526367f,
                       -0.39491748809814453f,
                       -0.28444138169288635f,
                       -0.18477343022823334f,
                       -0.09105003625154495f,
                       0.0f,
                       0.07958029955625534f,
                       0.16093020141124725f,
                       0.24611230194568634f,
                       0.33791524171829224f,
                       0.44070982933044434f,
                       0.5626170039176941f,
                       0.7229568362236023f,
                       1.0f};
  for (const float x : nf4) map += raw(x);
  const std::string state = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [1, 64]})";
  const Tensors good = {
      {"m.weight", {DType::u8, {32, 1}, codes}},
      {"m.weight.absmax", {DType::f32, {1}, absmax}},
      {"m.weight.quant_map", {DType::f32, {16}, map}},
      {"m.weight.quant_state.bitsandbytes__nf4", {DType::u8, {static_cast<int64_t>(state.size())}, state}}};
  put(good, kConfig);
  const Matrix values = dequantize(load());
  const float expected[] = {-0.5439006f, 0, 0.56481004f, -0.41021332f, 0.12572671f, 0.78125f, -0.3085293f, 0.26399627f};
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(values(0, i), expected[i], 1e-7) << i;

  const auto with = [&](const std::string& name, const Stored& t) {
    Tensors bad = good;
    bad[name] = t;
    return refusal(bad, kConfig);
  };
  const auto with_state = [&](const std::string& text) {
    return with("m.weight.quant_state.bitsandbytes__nf4", {DType::u8, {static_cast<int64_t>(text.size())}, text});
  };
  EXPECT_THAT(with("m.weight", {DType::u8, {31, 1}, codes.substr(1)}), HasSubstr("codes do not fit"));
  EXPECT_THAT(with("m.weight.absmax", {DType::f32, {2}, absmax + absmax}), HasSubstr("m.weight.absmax"));
  EXPECT_THAT(with("m.weight.absmax", {DType::f32, {1}, raw(0x7F800000)}), HasSubstr("not finite"));
  EXPECT_THAT(with("m.weight.quant_map", {DType::f32, {16}, std::string(64, '\0')}), HasSubstr("code table"));
  EXPECT_THAT(with_state("{"), HasSubstr("quant_state"));
  EXPECT_THAT(with_state(R"({"quant_type":"nf5","blocksize":64,"shape":[1,64]})"), HasSubstr("nf5"));
  EXPECT_THAT(with_state(R"({"quant_type":"nf4","blocksize":0,"shape":[1,64]})"), HasSubstr("block size"));
  EXPECT_THAT(with_state(R"({"quant_type":"nf4","blocksize":64})"), HasSubstr("shape"));
  EXPECT_THAT(with_state(R"({"quant_type":"nf4","blocksize":64,"shape":[4611686018427387904,4611686018427387904]})"),
              HasSubstr("codes do not fit"));
  Tensors lacking = good;
  lacking.erase("m.weight.absmax");
  EXPECT_THAT(refusal(lacking, kConfig), HasSubstr("incomplete"));
}

TEST_F(BnbFile, HistoricLayoutsOfInt8AreRefused) {
  const Tensors layer = {{"m.weight", {DType::i8, {2, 4}, std::string(8, '\1')}},
                         {"m.SCB", {DType::f32, {2}, raw(1.0f) + raw(2.0f)}},
                         {"m.weight_format", {DType::u8, {}, std::string(1, '\1')}}};
  const char* config = R"({"quantization_config":{"quant_method":"bitsandbytes","load_in_8bit":true}})";
  EXPECT_THAT(refusal(layer, config), AllOf(HasSubstr("m.weight_format"), HasSubstr("row-major")));
  Tensors lowest = layer;
  lowest["m.weight_format"].bytes[0] = '\0';
  put(lowest, config);
  EXPECT_EQ(dequantize(load())(1, 0), 2.0f / 127);
  lowest["m.weight"].bytes[3] = '\x80';  // -128 is never written
  EXPECT_THAT(refusal(lowest, config), HasSubstr("not a number"));
}

}  // namespace
}  // namespace pare::test
