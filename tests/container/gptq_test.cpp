// GPTQ layers: against checkpoints of the reference tools, and files made by hand.
#include <fstream>

#include "pare/container/checkpoint.h"
#include "pare/container/gptq_config.h"
#include "pare/container/gptq_tensors.h"
#include "pare/container/safetensors.h"
#include "tests/container/files.h"

namespace pare::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// ---- checkpoints of the reference tools

std::vector<std::filesystem::path> golden_checkpoints() {
  std::vector<std::filesystem::path> out;
  for (const auto& at : std::filesystem::directory_iterator(shared("golden/gptq")))
    if (std::filesystem::exists(at.path() / "dequantized.safetensors")) out.push_back(at.path());
  return out;
}

TEST(GoldenGptq, ValuesEqualTheToolsBitForBit) {
  PARE_NEEDS_SHARED("golden/gptq");
  int compared = 0;
  for (const auto& directory : golden_checkpoints()) {
    SCOPED_TRACE(directory.filename().string());
    const auto checkpoint = Checkpoint::open(directory);
    EXPECT_THAT(checkpoint->quantization(), HasSubstr("gptq int"));
    const auto expected = SafetensorsFile::open(directory / "dequantized.safetensors");
    for (const auto& e : expected->entries()) {
      std::string name = e.name;
      if (const size_t rows = name.find(".rows"); rows != std::string::npos) name.resize(rows);
      const Weight weight = checkpoint->load(name);
      const auto& q = std::get<Quantized>(weight);
      Matrix values = dequantize(q);
      if (directory.string().ends_with("planar"))  // these come from the tool's kernel, which rounds
        for (float& x : values.values()) x = round_to_f16(x);
      ASSERT_EQ(values.cols(), e.shape[1]);
      ASSERT_EQ(0, std::memcmp(values.data(), e.bytes.data(), e.bytes.size())) << e.name;
      EXPECT_TRUE(checkpoint->grid_of_weight(name) == q.grid());
      EXPECT_EQ(checkpoint->shape_of(name), q.shape());
      ++compared;
    }
  }
  EXPECT_EQ(compared, 38);
}

TEST(GoldenGptq, VersionsHoldTheSameCodes) {
  PARE_NEEDS_SHARED("golden/gptq");
  const auto v1 = Checkpoint::open(shared("golden/gptq/llama_4b_sym_g128"));
  const auto v2 = Checkpoint::open(shared("golden/gptq/llama_4b_sym_g128_v2"));
  const std::string name = "model.layers.1.mlp.gate_proj.weight";
  expect_equal(std::get<Quantized>(v1->load(name)), std::get<Quantized>(v2->load(name)));
}

TEST(GoldenGptq, MixedWidthsAreReadFromTheShapes) {
  PARE_NEEDS_SHARED("golden/gptq");
  const auto mixed = Checkpoint::open(shared("golden/gptq/llama_dynamic"));
  EXPECT_EQ(name_of(*mixed->grid_of_weight("model.layers.0.mlp.down_proj.weight")), "int8-g32-sym");
  EXPECT_EQ(name_of(*mixed->grid_of_weight("model.layers.0.mlp.up_proj.weight")), "int4-g128-sym");
  EXPECT_FALSE(mixed->grid_of_weight("model.layers.1.mlp.up_proj.weight").has_value());
  EXPECT_TRUE(std::holds_alternative<FloatTensor>(mixed->load("model.layers.1.mlp.up_proj.weight")));
  const auto head = Checkpoint::open(shared("golden/gptq/llama_lm_head"));
  EXPECT_EQ(name_of(*head->grid_of_weight("lm_head.weight")), "int8-g32-sym");
}

TEST(GoldenGptq, EncodingGivesTheFilesBytesBack) {
  PARE_NEEDS_SHARED("golden/gptq");
  for (const auto& directory : golden_checkpoints()) {
    if (directory.string().ends_with("llama_2b_asym_g32")) continue;  // zeros of 0, which v1 cannot hold
    if (directory.string().ends_with("llama_3b_asym_g32")) continue;
    SCOPED_TRACE(directory.filename().string());
    const auto checkpoint = Checkpoint::open(directory);
    const auto zeros = directory.string().ends_with("v2")       ? GptqZeros::plain
                       : directory.string().ends_with("planar") ? GptqZeros::planar
                                                                : GptqZeros::minus_one;
    for (const StoredTensor& t : checkpoint->tensors()) {
      if (!t.name.ends_with(".qweight")) continue;
      const std::string module = t.name.substr(0, t.name.size() - 8);
      const Quantized q = std::get<Quantized>(checkpoint->load(module + ".weight"));
      const GptqBytes bytes = encode_gptq(q, zeros);
      EXPECT_EQ(text_of(bytes.qweight), text_of(t.bytes)) << module;
      EXPECT_EQ(text_of(bytes.qzeros), text_of(checkpoint->find(module + ".qzeros")->bytes)) << module;
      EXPECT_EQ(text_of(bytes.scales), text_of(checkpoint->find(module + ".scales")->bytes)) << module;
      EXPECT_EQ(text_of(bytes.g_idx), text_of(checkpoint->find(module + ".g_idx")->bytes)) << module;
      EXPECT_EQ(bytes.ordered, !q.order.empty());
    }
  }
}

// ---- layers made by hand

struct Layer {
  std::vector<SafetensorsSlot> slots;
  std::map<std::string, std::vector<std::byte>> bytes;

  void set(const std::string& name, DType type, std::vector<int64_t> shape, std::vector<std::byte> data) {
    std::erase_if(slots, [&](const auto& s) { return s.name == name; });
    slots.push_back({name, type, std::move(shape)});
    bytes[name] = std::move(data);
  }
  void drop(const std::string& name) {
    std::erase_if(slots, [&](const auto& s) { return s.name == name; });
  }
};

Layer layer_of(const Quantized& q, GptqZeros zeros) {
  const auto& affine = std::get<Affine>(q.params);
  const int64_t n = q.shape().rows, k = q.shape().cols, bits = affine.spec.bits, groups = affine.scale.rows();
  GptqBytes b = encode_gptq(q, zeros);
  Layer layer;
  layer.set("m.qweight", DType::i32, {k * bits / 32, n}, std::move(b.qweight));
  layer.set("m.qzeros", DType::i32, {groups, n * bits / 32}, std::move(b.qzeros));
  layer.set("m.scales", DType::f16, {groups, n}, std::move(b.scales));
  layer.set("m.g_idx", DType::i32, {k}, std::move(b.g_idx));
  return layer;
}

template <class T>
std::vector<std::byte> as_bytes(const std::vector<T>& values) {
  const auto bytes = bytes_of(values);
  return {bytes.begin(), bytes.end()};
}

class GptqFile : public ::testing::Test {
 protected:
  void put(const Layer& layer, const std::string& quantization = R"({"quant_method":"gptq"})") {
    SafetensorsWriter writer(directory_ / "model.safetensors", layer.slots);
    for (const auto& slot : layer.slots) writer.add(slot.name, layer.bytes.at(slot.name));
    writer.commit();
    write_bytes(directory_ / "config.json", R"({"quantization_config":)" + quantization + "}");
  }
  Quantized load(const Layer& layer, const std::string& quantization = R"({"quant_method":"gptq"})") {
    put(layer, quantization);
    const Weight weight = Checkpoint::open(directory_.path())->load("m.weight");
    return std::get<Quantized>(weight);
  }
  std::string refusal(const Layer& layer, const std::string& quantization = R"({"quant_method":"gptq"})") {
    put(layer, quantization);
    return error_of([&] { Checkpoint::open(directory_.path())->load("m.weight"); });
  }
  TemporaryDirectory directory_;
};

Quantized symmetric(unsigned seed = 1) {
  return random_quantized(AffineSpec{.bits = 4, .group = 32, .symmetric = true}, {64, 96}, seed);
}
Quantized asymmetric(int lowest, int bits = 4) {
  return random_quantized(AffineSpec{.bits = bits, .group = 32, .symmetric = false, .lowest_zero = lowest}, {64, 96},
                          2);
}

TEST_F(GptqFile, SymmetricZerosAreReadWhateverTheFormatSays) {
  const Quantized q = symmetric();
  for (const GptqZeros stored : {GptqZeros::minus_one, GptqZeros::plain})
    for (const char* format : {R"("checkpoint_format":"gptq",)", R"("checkpoint_format":"gptq_v2",)", ""})
      expect_equal(load(layer_of(q, stored), R"({"quant_method":"gptq",)" + std::string(format) + R"("bits":4})"), q);
  put(layer_of(q, GptqZeros::plain));  // says v1
  EXPECT_THAT(Checkpoint::open(directory_.path())->warnings(), ::testing::ElementsAre(HasSubstr("contradict")));
  put(layer_of(q, GptqZeros::minus_one));
  EXPECT_THAT(Checkpoint::open(directory_.path())->warnings(), ::testing::IsEmpty());
}

TEST_F(GptqFile, AsymmetricZerosFollowTheFormat) {
  const std::string v1 = R"({"quant_method":"gptq","sym":false})";
  const std::string v2 = R"({"quant_method":"gptq","sym":false,"checkpoint_format":"gptq_v2"})";
  for (const int bits : {2, 3, 4, 8}) {
    expect_equal(load(layer_of(asymmetric(1, bits), GptqZeros::minus_one), v1), asymmetric(1, bits));
    expect_equal(load(layer_of(asymmetric(0, bits), GptqZeros::plain), v2), asymmetric(0, bits));
  }
  // The word "sym" missing or wrong does no harm where the zeros differ.
  expect_equal(load(layer_of(asymmetric(1), GptqZeros::minus_one)), asymmetric(1));
}

// GPTQModel subtracts a one from every field with borrow; only adding to whole words reads a zero of 0.
TEST_F(GptqFile, BorrowedZerosAreReadFromItsAuthorOnly) {
  const Quantized q = asymmetric(0);
  Layer layer = layer_of(q, GptqZeros::plain);
  std::vector<uint32_t> words(layer.bytes["m.qzeros"].size() / 4);
  std::memcpy(words.data(), layer.bytes["m.qzeros"].data(), words.size() * 4);
  for (uint32_t& w : words) w -= 0x11111111u;
  layer.set("m.qzeros", DType::i32, {3, 8}, as_bytes(words));
  expect_equal(load(layer, R"({"quant_method":"gptq","sym":false,"meta":{"quantizer":["gptqmodel:7.6.0"]}})"), q);
  EXPECT_THAT(refusal(layer, R"({"quant_method":"gptq","sym":false})"), HasSubstr("read differently"));
}

TEST_F(GptqFile, OrderIsFoundFromTheGroups) {
  Quantized q = symmetric();
  q.order.resize(96);
  for (int c = 0; c < 96; ++c) q.order[static_cast<size_t>(c)] = c % 32 * 3 + c / 32;  // stable within groups
  Layer layer = layer_of(q, GptqZeros::minus_one);
  expect_equal(load(layer), q);
  std::vector<int32_t> groups(96);
  std::memcpy(groups.data(), layer.bytes["m.g_idx"].data(), 96 * 4);
  for (int32_t& g : groups) g -= 3;  // negative ones count from the end
  layer.set("m.g_idx", DType::i32, {96}, as_bytes(groups));
  expect_equal(load(layer), q);
}

TEST_F(GptqFile, GroupsMayBeLeftOut) {
  Layer layer = layer_of(symmetric(), GptqZeros::minus_one);
  layer.drop("m.g_idx");
  expect_equal(load(layer), symmetric());
}

TEST_F(GptqFile, WiderScalesAreTakenOnlyWhenExact) {
  const Quantized q = symmetric();
  Layer layer = layer_of(q, GptqZeros::minus_one);
  std::vector<float> scales(std::get<Affine>(q.params).scale.values().begin(),
                            std::get<Affine>(q.params).scale.values().end());
  layer.set("m.scales", DType::f32, {3, 64}, as_bytes(scales));
  expect_equal(load(layer), q);
  scales[70] += 1e-7f;
  layer.set("m.scales", DType::f32, {3, 64}, as_bytes(scales));
  EXPECT_THAT(refusal(layer), AllOf(HasSubstr("m.scales"), HasSubstr("not exact in f16"), HasSubstr("[1, 6]")));
  scales[70] = std::numeric_limits<float>::infinity();
  layer.set("m.scales", DType::f32, {3, 64}, as_bytes(scales));
  EXPECT_THAT(refusal(layer), HasSubstr("not finite"));
  std::vector<uint16_t> bf16(192, f32_to_bf16(-0.0123f));
  layer.set("m.scales", DType::bf16, {3, 64}, as_bytes(bf16));
  EXPECT_EQ(std::get<Affine>(load(layer).params).scale(2, 63), bf16_to_f32(bf16[0]));
  layer.set("m.scales", DType::f16, {3, 64}, as_bytes(std::vector<uint16_t>(192, 0x7E00)));
  EXPECT_THAT(refusal(layer), HasSubstr("not finite"));
}

TEST_F(GptqFile, RefusesShapesThatContradict) {
  const Layer good = layer_of(symmetric(), GptqZeros::minus_one);
  const auto with = [&](const std::string& name, DType type, std::vector<int64_t> shape) {
    Layer bad = good;
    SafetensorsSlot slot{name, type, shape};
    bad.set(name, type, shape, std::vector<std::byte>(slot_bytes(slot)));
    return refusal(bad);
  };
  EXPECT_THAT(with("m.scales", DType::f16, {3, 32}), HasSubstr("scales do not fit"));
  EXPECT_THAT(with("m.scales", DType::f16, {2, 64}), HasSubstr("zero points do not fit"));
  EXPECT_THAT(with("m.scales", DType::i32, {3, 64}), HasSubstr("type"));
  EXPECT_THAT(with("m.scales", DType::f16, {192}), HasSubstr("wrong shape"));
  EXPECT_THAT(with("m.qzeros", DType::i32, {3, 7}), HasSubstr("zero points do not fit"));
  EXPECT_THAT(with("m.qzeros", DType::i32, {3, 2}), HasSubstr("2 to 8 bits"));
  EXPECT_THAT(with("m.qzeros", DType::i32, {3, 0}), HasSubstr("wrong shape"));
  EXPECT_THAT(with("m.qweight", DType::i32, {13, 64}), HasSubstr("multiple of 32"));
  EXPECT_THAT(with("m.qweight", DType::i16, {12, 64}), HasSubstr("int32"));
  EXPECT_THAT(with("m.qweight", DType::i32, {16, 64}), HasSubstr("g_idx"));
  EXPECT_THAT(with("m.g_idx", DType::i32, {95}), HasSubstr("list of groups"));
  EXPECT_THAT(with("m.g_idx", DType::i32, {96}), HasSubstr("different sizes"));
  Layer far = good;
  far.set("m.g_idx", DType::i32, {96}, as_bytes(std::vector<int32_t>(96, 3)));
  EXPECT_THAT(refusal(far), HasSubstr("does not exist"));
  far.set("m.g_idx", DType::i32, {96}, as_bytes(std::vector<int32_t>(96, INT32_MIN)));
  EXPECT_THAT(refusal(far), HasSubstr("does not exist"));
  Layer lacking = good;
  lacking.drop("m.qzeros");
  EXPECT_THAT(refusal(lacking), HasSubstr("incomplete"));
  Layer twice = good;
  twice.set("m.weight", DType::f16, {64, 96}, std::vector<std::byte>(64 * 96 * 2));
  EXPECT_THAT(refusal(twice), HasSubstr("twice"));
}

TEST_F(GptqFile, RefusesOtherMethodsInPlainWords) {
  const Layer layer = layer_of(symmetric(), GptqZeros::minus_one);
  for (const char* method : {"exl2", "quip", "hqq"})
    EXPECT_THAT(refusal(layer, R"({"quant_method":")" + std::string(method) + "\"}"),
                AllOf(HasSubstr("reading " + std::string(method) + " checkpoints is not built yet"),
                      HasSubstr("original model")));
  EXPECT_THAT(refusal(layer, R"({"quant_method":"gptq","checkpoint_format":"gptq_x"})"), HasSubstr("gptq_x"));
  EXPECT_THAT(refusal(layer, R"({"quant_method":"gptq","is_marlin_format":true})"), HasSubstr("marlin"));
  EXPECT_THAT(refusal(layer, R"({"quant_method":"gptq","pack_dtype":"int16"})"), HasSubstr("int16"));
  EXPECT_THAT(refusal(layer, "[1]"), HasSubstr("no JSON object"));
}

TEST_F(GptqFile, TheConfigMayStandInAFileOfItsOwn) {
  put(layer_of(asymmetric(0), GptqZeros::plain), "null");
  write_bytes(directory_ / "quantize_config.json", R"({"bits":4,"sym":false,"checkpoint_format":"gptq_v2"})");
  expect_equal(std::get<Quantized>(Checkpoint::open(directory_.path())->load("m.weight")), asymmetric(0));
}

// ---- the config that is written

OutputTensor planned(const std::string& name, std::optional<Grid> grid, std::vector<int64_t> shape = {64, 128}) {
  return {.name = name, .shape = std::move(shape), .grid = grid, .dtype = DType::f16, .ordered = false};
}

TEST(GptqConfig, HoldsWhatTheReadersAskFor) {
  const Grid grid = AffineSpec{.bits = 4, .group = 128};
  OutputPlan plan;
  plan.tensors = {planned("model.embed_tokens.weight", {}), planned("model.layers.0.a.weight", grid),
                  planned("model.layers.0.norm.weight", {}, {64}), planned("lm_head.weight", {})};
  plan.quantization = {{"damp_percent", 0.01}, {"bits", 99}};
  const Json config = gptq_config(plan, GptqZeros::minus_one, false);
  EXPECT_EQ(config, Json::parse(R"({"bits":4,"group_size":128,"desc_act":false,"sym":true,"lm_head":false,
    "quant_method":"gptq","method":"gptq","checkpoint_format":"gptq","format":"gptq","pack_dtype":"int32",
    "damp_percent":0.01})"));
}

TEST(GptqConfig, NamesTheExceptions) {
  const Grid common = AffineSpec{.bits = 4, .group = 64}, other = AffineSpec{.bits = 8, .group = 0, .symmetric = false};
  OutputPlan plan;
  plan.tensors = {planned("model.layers.0.a.weight", common), planned("model.layers.1.a.weight", other),
                  planned("model.layers.2.a.weight", common), planned("model.layers.3.a.weight", {}),
                  planned("lm_head.weight", common)};
  const Json config = gptq_config(plan, GptqZeros::plain, true);
  EXPECT_EQ(config["checkpoint_format"], "gptq_v2");
  EXPECT_EQ(config["desc_act"], true);
  EXPECT_EQ(config["lm_head"], true);
  EXPECT_EQ(config["dynamic"], Json::parse(R"({"+:model\\.layers\\.1\\.a$":{"bits":8,"group_size":-1,"sym":false},
                                               "-:model\\.layers\\.3\\.a$":{}})"));
}

}  // namespace
}  // namespace pare::test
