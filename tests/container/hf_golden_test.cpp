// Checkpoints of the reference tools: read value by value as the tools read them, written back byte by byte.
#include <bit>
#include <cmath>

#include "pare/container/checkpoint.h"
#include "pare/container/hf_format.h"
#include "pare/container/safetensors.h"
#include "tests/container/files.h"

namespace pare::test {
namespace {

using ::testing::HasSubstr;

struct Golden {
  std::string directory;  // below golden/
  std::string format;     // the row that writes it; "": it is only read
  std::string says;       // what Checkpoint::quantization() must name
  int steps = 0;          // of f32 that values may differ: LLM.int8's tools divide by 127 before or after the product
  bool bf16 = false;      // the tool rounds its products to bf16
};
void PrintTo(const Golden& g, std::ostream* out) { *out << g.directory; }

const Golden kGoldens[] = {
    {"awq/llama_gemm_g128", "awq", "awq int4-g128-asym"},
    {"awq/llama_gemm_g32", "awq", "awq int4-g32-asym"},
    {"awq/opt_gemm_g64", "awq", "awq int4-g64-asym"},
    {"ct/llama_w3a16_sym_g128_rtn", "compressed-tensors", "pack-quantized int3-g128-sym"},
    {"ct/llama_w4a16_asym_g128_rtn", "compressed-tensors", "pack-quantized int4-g128-asym"},
    {"ct/llama_w4a16_sym_channel_rtn", "compressed-tensors", "pack-quantized int4-"},
    {"ct/llama_w4a16_sym_g128_gptq", "compressed-tensors", "pack-quantized int4-g128-sym"},
    {"ct/llama_w4a16_sym_g128_rtn", "compressed-tensors", "pack-quantized int4-g128-sym"},
    {"ct/llama_w4a16_sym_g32_gptq_actgroup_old", "", "pack-quantized int4-g32-sym"},
    {"ct/llama_w4a16_sym_g32_gptq_actweight", "compressed-tensors", "pack-quantized int4-g32-sym"},
    {"ct/llama_w5a16_asym_g32_rtn", "compressed-tensors", "pack-quantized int5-g32-asym"},
    {"ct/llama_w8a16_sym_g128_rtn", "compressed-tensors", "pack-quantized int8-g128-sym"},
    {"ct/opt_w4a16_asym_g128_gptq_actweight", "compressed-tensors", "pack-quantized int4-g128-asym"},
    {"ct/llama_w8a8_int8", "compressed-tensors-w8a8", "int-quantized int8-"},
    {"ct/llama_w8a8_int8_static", "compressed-tensors-w8a8", "int-quantized int8-tensor-sym"},
    {"ct/llama_fp8", "compressed-tensors-w8a8", "float-quantized fp8-tensor"},
    {"ct/llama_fp8_dynamic", "compressed-tensors-w8a8", "float-quantized fp8"},
    {"ct/llama_fp8_block", "compressed-tensors-w8a8", "float-quantized fp8-block"},
    {"ct/llama_mxfp8a16", "compressed-tensors", "mxfp8-quantized mxfp8"},
    {"ct/llama_mxfp4a16", "compressed-tensors", "mxfp4-pack-quantized mxfp4"},
    {"ct/llama_nvfp4", "compressed-tensors", "nvfp4-pack-quantized nvfp4-global", 0, true},
    {"bnb/llama_nf4", "bnb", "bitsandbytes nf4"},
    {"bnb/llama_fp4", "bnb", "bitsandbytes fp4"},
    {"bnb/llama_nf4_dq", "bnb", "bitsandbytes nf4-dq"},
    {"bnb/opt_nf4", "bnb", "bitsandbytes nf4"},
    {"bnb/opt_fp4", "bnb", "bitsandbytes fp4"},
    {"bnb/opt_nf4_dq", "bnb", "bitsandbytes nf4-dq"},
    {"bnb/llama_int8", "bnb", "bitsandbytes llm-int8", 2},
    {"bnb/opt_int8", "bnb", "bitsandbytes llm-int8", 2},
};

// How many steps of f32 lie between two numbers of one sign.
int steps_between(float a, float b) {
  if (a == b) return 0;
  return std::abs(std::bit_cast<int32_t>(a) - std::bit_cast<int32_t>(b));
}

class HfGolden : public ::testing::TestWithParam<Golden> {
 protected:
  void SetUp() override {
    directory_ = shared("golden/" + GetParam().directory);
    PARE_NEEDS_SHARED("golden/" + GetParam().directory);
    checkpoint_ = Checkpoint::open(directory_);
  }
  std::filesystem::path directory_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};
INSTANTIATE_TEST_SUITE_P(Tools, HfGolden, ::testing::ValuesIn(kGoldens), [](const auto& at) {
  std::string name = at.param.directory;
  for (char& c : name)
    if (c == '/') c = '_';
  return name;
});

TEST_P(HfGolden, ValuesEqualTheToolsBitForBit) {
  EXPECT_THAT(checkpoint_->quantization(), HasSubstr(GetParam().says));
  EXPECT_THAT(checkpoint_->warnings(), ::testing::IsEmpty());
  int compared = 0;
  const auto expected = SafetensorsFile::open(directory_ / "dequantized.safetensors");
  for (const auto& e : expected->entries()) {
    const std::string name = e.name.substr(0, e.name.find(".rows"));
    const Weight weight = checkpoint_->load(name);
    const auto& q = std::get<Quantized>(weight);
    const Matrix values = dequantize(q);
    ASSERT_EQ(values.cols(), e.shape[1]);
    std::vector<float> tools(e.bytes.size() / sizeof(float));
    std::memcpy(tools.data(), e.bytes.data(), e.bytes.size());
    for (size_t i = 0; i < tools.size(); ++i)
      ASSERT_LE(
          steps_between(GetParam().bf16 ? bf16_to_f32(f32_to_bf16(values.data()[i])) : values.data()[i], tools[i]),
          GetParam().steps)
          << e.name << " at " << i;
    EXPECT_TRUE(checkpoint_->grid_of_weight(name) == q.grid());
    EXPECT_EQ(checkpoint_->shape_of(name), q.shape());
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

const HfFormat& format_named(const std::string& name) {
  for (const HfFormat* f : all_hf_formats())
    if (f->name == name) return *f;
  throw std::logic_error("no such format: " + name);
}

// The tensors that the format would write for every quantized weight of the checkpoint are those of the file.
TEST_P(HfGolden, WritingWhatWasReadGivesTheBytesBack) {
  if (GetParam().format.empty()) GTEST_SKIP() << "this variant is only read";
  const HfFormat& format = format_named(GetParam().format);
  const StoredTensor* norm = checkpoint_->find("model.norm.weight");
  const DType floats = norm && norm->type == "f16" ? DType::f16 : DType::bf16;
  int layers = 0;
  for (const StoredTensor& t : checkpoint_->tensors()) {
    // Every layer has exactly one tensor of scales.
    std::string name = t.name.substr(0, t.name.rfind('.'));
    if (!name.ends_with(".weight")) name += ".weight";
    const std::string last = t.name.substr(t.name.rfind('.') + 1);
    if (last != "scales" && last != "weight_scale" && last != "absmax" && last != "SCB") continue;
    const Quantized q = std::get<Quantized>(checkpoint_->load(name));
    const OutputTensor planned{
        .name = name, .shape = {q.shape().rows, q.shape().cols}, .grid = q.grid(), .dtype = floats, .ordered = true};
    const auto slots = format.slots(planned);
    const auto parts = format.encode(planned, q);
    ASSERT_EQ(slots.size(), parts.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      const StoredTensor* stored = checkpoint_->find(slots[i].name);
      ASSERT_TRUE(stored) << slots[i].name;
      EXPECT_EQ(parts[i].name, slots[i].name);
      EXPECT_EQ(info(slots[i].dtype).name, stored->type) << slots[i].name;
      EXPECT_EQ(parts[i].bytes.size(), slot_bytes(slots[i])) << slots[i].name;
      if (slots[i].name.find(".quant_state.") != std::string::npos) {  // filled up with spaces
        EXPECT_EQ(Json::parse(text_of(parts[i].bytes)), Json::parse(text_of(stored->bytes))) << slots[i].name;
        continue;
      }
      EXPECT_EQ(slots[i].shape, stored->shape) << slots[i].name;
      EXPECT_TRUE(text_of(parts[i].bytes) == text_of(stored->bytes)) << slots[i].name;
    }
    ++layers;
  }
  EXPECT_GE(layers, 12);
}

}  // namespace
}  // namespace pare::test
