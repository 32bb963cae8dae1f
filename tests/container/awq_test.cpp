// AWQ layers: the reference packers' tensors, and files made by hand.
#include "pare/container/checkpoint.h"
#include "pare/container/container.h"
#include "pare/container/safetensors.h"
#include "tests/container/files.h"

namespace pare::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Tensors and a quantization config, as a checkpoint.
class AwqFile : public ::testing::Test {
 protected:
  struct Stored {
    DType type;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  void put(const std::map<std::string, Stored>& tensors, const std::string& quantization) {
    std::vector<SafetensorsSlot> slots;
    for (const auto& [name, t] : tensors) slots.push_back({name, t.type, t.shape});
    SafetensorsWriter writer(directory_ / "model.safetensors", slots);
    for (const auto& [name, t] : tensors) writer.add(name, bytes_of(t.bytes));
    writer.commit();
    write_bytes(directory_ / "config.json", R"({"quantization_config":)" + quantization + "}");
  }
  Quantized load() { return std::get<Quantized>(Checkpoint::open(directory_.path())->load("m.weight")); }
  std::string refusal(const std::map<std::string, Stored>& tensors, const std::string& quantization) {
    put(tensors, quantization);
    return error_of([&] { load(); });
  }
  TemporaryDirectory directory_;
};

// One matrix as AutoAWQ 0.2.9 packs it in its three ways.
TEST_F(AwqFile, ThreeLayoutsOfTheReferenceHoldTheSameMatrix) {
  PARE_NEEDS_SHARED("golden/awq/pack_k256_n64_g32.safetensors");
  for (const int group : {32, 64, 128})
    for (const std::string version : {"gemm", "gemv", "gemv_fast"}) {
      SCOPED_TRACE(version + " " + std::to_string(group));
      const auto file =
          SafetensorsFile::open(shared("golden/awq/pack_k256_n64_g" + std::to_string(group) + ".safetensors"));
      std::map<std::string, const SafetensorsEntry*> golden;
      std::map<std::string, Stored> tensors;
      for (const SafetensorsEntry& e : file->entries()) {
        golden[e.name] = &e;
        if (e.name.starts_with(version + ".") && !e.name.ends_with("dequantized") && !e.name.ends_with("bias"))
          tensors["m." + e.name.substr(version.size() + 1)] = {e.dtype, e.shape, text_of(e.bytes)};
      }
      put(tensors, R"({"quant_method":"awq","bits":4,"zero_point":true,"version":")" + version + R"(","group_size":)" +
                       std::to_string(group) + "}");
      const Quantized q = load();
      EXPECT_EQ(name_of(q.grid()), "int4-g" + std::to_string(group) + "-asym");
      EXPECT_TRUE(text_of(std::as_bytes(q.codes.values())) == text_of(golden["codes"]->bytes));
      const auto& affine = std::get<Affine>(q.params);
      for (int64_t r = 0; r < 64; ++r)
        for (int64_t g = 0; g < 256 / group; ++g)
          ASSERT_EQ(affine.zero(g, r),
                    std::to_integer<uint8_t>(golden["zeros"]->bytes[static_cast<size_t>(r * (256 / group) + g)]));
      // The tool multiplies in f16.
      std::vector<float> weight(64 * 256);
      to_f32(DType::f16, golden["gemm.dequantized"]->bytes, weight);
      const Matrix values = dequantize(q);
      for (size_t i = 0; i < weight.size(); ++i) ASSERT_EQ(round_to_f16(values.data()[i]), weight[i]);
    }
}

// Words of the specification's test vector (hf_checkpoints.md A.2), K = 128, N = 32, groups of 64.
TEST_F(AwqFile, PackingIsTheSpecifications) {
  Quantized q(AffineSpec{.bits = 4, .group = 64, .symmetric = false}, {32, 128});
  auto& affine = std::get<Affine>(q.params);
  for (int n = 0; n < 32; ++n) {
    for (int k = 0; k < 128; ++k) q.codes(n, k) = static_cast<uint8_t>((5 * k + 3 * n + k * n / 7) % 16);
    for (int g = 0; g < 2; ++g)
      affine.zero(g, n) = static_cast<uint8_t>((3 * g + n) % 16), affine.scale(g, n) = 0x1p-6f;
  }
  OutputPlan plan;
  plan.tensors = {{"m.weight", {32, 128}, q.grid(), DType::f16, false}};
  auto writer = find_container("awq").create(directory_ / "out", plan, false);
  writer->add("m.weight", q);
  writer->commit();
  const auto read = Checkpoint::open(directory_ / "out");
  const auto words = [&](const std::string& name, size_t first, size_t count) {
    std::vector<uint32_t> out(count);
    std::memcpy(out.data(), read->find(name)->bytes.data() + 4 * first, 4 * count);
    return out;
  };
  using W = std::vector<uint32_t>;
  EXPECT_EQ(words("m.qweight", 0, 2), (W{0x5F932C60, 0xD71BA4E8}));
  EXPECT_EQ(words("m.qweight", 4, 4), (W{0xB4E871B5, 0x4D711A4E, 0xD70AA3D7, 0x60933D60}));
  EXPECT_EQ(words("m.qzeros", 0, 4), (W{0x75316420, 0xFDB9ECA8, 0x75316420, 0xFDB9ECA8}));
  EXPECT_EQ(words("m.qzeros", 4, 2), (W{0xA8649753, 0x20EC1FDB}));
  expect_equal(std::get<Quantized>(read->load("m.weight")), q);
  EXPECT_EQ(read->config()["quantization_config"],
            Json::parse(R"({"quant_method":"awq","bits":4,"group_size":64,"zero_point":true,"version":"gemm",
                            "modules_to_not_convert":null})"));
}

TEST_F(AwqFile, IsKnownByItsShapesWithoutAConfig) {
  std::map<std::string, Stored> layer = {{"m.qweight", {DType::i32, {96, 8}, std::string(96 * 8 * 4, '\x5A')}},
                                         {"m.qzeros", {DType::i32, {3, 8}, std::string(3 * 8 * 4, '\x88')}},
                                         {"m.scales", {DType::f16, {3, 64}, std::string(3 * 64 * 2, '\x20')}}};
  for (const char* config : {"null", R"({"zero_point":true,"version":"GEMM","w_bit":4,"q_group_size":32})"}) {
    put(layer, config);
    const Quantized q = load();
    EXPECT_EQ(q.shape(), (Shape{64, 96}));
    EXPECT_EQ(name_of(q.grid()), "int4-g32-sym");  // all zeros are 8
  }
}

TEST_F(AwqFile, RefusesWhatItDoesNotUnderstand) {
  const std::map<std::string, Stored> good = {{"m.qweight", {DType::i32, {96, 8}, std::string(96 * 8 * 4, 'a')}},
                                              {"m.qzeros", {DType::i32, {3, 8}, std::string(3 * 8 * 4, 'b')}},
                                              {"m.scales", {DType::f16, {3, 64}, std::string(3 * 64 * 2, '\x20')}}};
  const std::string config = R"({"quant_method":"awq","bits":4,"group_size":32,"version":"gemm"})";
  EXPECT_THAT(refusal(good, R"({"quant_method":"awq","bits":4,"version":"marlin"})"), HasSubstr("marlin"));
  EXPECT_THAT(refusal(good, R"({"quant_method":"awq","bits":3,"version":"gemm"})"), HasSubstr("4 bits"));
  const auto with = [&](const std::string& name, DType type, std::vector<int64_t> shape) {
    auto bad = good;
    const auto size = slot_bytes({name, type, shape});
    bad[name] = {type, shape, std::string(size, '\x20')};
    return refusal(bad, config);
  };
  EXPECT_THAT(with("m.scales", DType::f16, {3, 32}), AllOf(HasSubstr("m.scales"), HasSubstr("fit")));
  EXPECT_THAT(with("m.scales", DType::f16, {5, 64}), HasSubstr("m.qzeros"));
  EXPECT_THAT(with("m.scales", DType::i32, {3, 64}), HasSubstr("type"));
  EXPECT_THAT(with("m.qzeros", DType::i32, {3, 7}), HasSubstr("m.qzeros"));
  EXPECT_THAT(with("m.qweight", DType::i16, {96, 8}), HasSubstr("type"));
  EXPECT_THAT(with("m.qweight", DType::i32, {95, 8}), HasSubstr("divide"));
  auto lacking = good;
  lacking.erase("m.qzeros");
  EXPECT_THAT(refusal(lacking, config), HasSubstr("incomplete"));
  auto infinite = good;
  infinite["m.scales"].bytes[1] = '\x7C', infinite["m.scales"].bytes[0] = '\0';
  EXPECT_THAT(refusal(infinite, config), HasSubstr("not finite"));
}

TEST_F(AwqFile, OneGroupSizeForAllLayers) {
  OutputPlan plan;
  plan.tensors = {{"a.0.m.weight", {64, 128}, AffineSpec{.group = 64}, DType::f16, false},
                  {"a.1.m.weight", {64, 256}, AffineSpec{.group = 128}, DType::f16, false}};
  EXPECT_THAT(error_of([&] { find_container("awq").output_bytes(plan); }),
              AllOf(HasSubstr("a.1.m.weight"), HasSubstr("one group size")));
  plan.tensors[1].grid = {};
  EXPECT_GT(find_container("awq").output_bytes(plan), 0);
}

}  // namespace
}  // namespace pare::test
