// Which reader opens what, and what it says where there is nothing to open.
#include "pare/container/checkpoint.h"

#include "pare/container/gguf_blocks.h"
#include "pare/container/safetensors.h"
#include "tests/container/files.h"
#include "tests/container/gguf_image.h"

namespace pare::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

class Open : public ::testing::Test {
 protected:
  void put(const std::string& name, const std::string& bytes) { write_bytes(directory_ / name, bytes); }
  void put_safetensors(const std::string& name, std::vector<SafetensorsSlot> slots,
                       std::map<std::string, std::string> metadata = {{"format", "pt"}}) {
    SafetensorsWriter writer(directory_ / name, slots, metadata);
    for (const auto& slot : slots) writer.add(slot.name, bytes_of(std::string(slot_bytes(slot), slot.name[0])));
    writer.commit();
  }
  std::shared_ptr<const Checkpoint> open(const std::string& name = "") {
    return Checkpoint::open(name.empty() ? directory_.path() : directory_ / name);
  }
  std::string refusal(const std::string& name = "") {
    return error_of([&] { open(name); });
  }
  TemporaryDirectory directory_;
};

TEST(DemoModel, IsReadAsFloats) {
  const auto checkpoint = Checkpoint::open(demo_model());
  EXPECT_EQ(checkpoint->format(), Format::huggingface);
  EXPECT_EQ(checkpoint->quantization(), "none");
  EXPECT_EQ(checkpoint->file_bytes(), static_cast<int64_t>(fs::file_size(demo_model() / "model.safetensors")));
  EXPECT_TRUE(checkpoint->config().contains("architectures"));
  for (const StoredTensor& t : checkpoint->tensors()) {
    ASSERT_TRUE(checkpoint->has(t.name));
    const auto weight = std::get<FloatTensor>(checkpoint->load(t.name));
    EXPECT_EQ(weight.to_matrix().shape(), *checkpoint->shape_of(t.name));
    checkpoint->forget(t.name);
  }
  EXPECT_FALSE(checkpoint->has("no.such.weight"));
  EXPECT_THAT(error_of([&] { checkpoint->load("no.such.weight"); }), HasSubstr("no.such.weight"));
  EXPECT_EQ(Checkpoint::open(demo_model() / "model.safetensors")->path(), demo_model());
}

TEST_F(Open, MatricesAreConverted) {
  const std::string stored = from_hex("803f0040c0bf000080ff0000");
  const FloatTensor t{DType::bf16, {2, 3}, bytes_of(stored)};
  const Matrix m = t.to_matrix();
  EXPECT_EQ(m(0, 1), 2.0f);
  EXPECT_EQ(m(0, 2), -1.5f);
  EXPECT_EQ(m.shape(), (Shape{2, 3}));
  EXPECT_EQ((FloatTensor{DType::f32, {3}, bytes_of(std::string(12, '\0'))}.to_matrix().shape()), (Shape{1, 3}));
  EXPECT_THAT(error_of([] {
                FloatTensor{DType::f32, {1, 1, 1}, bytes_of(std::string(4, '\0'))}.to_matrix();
              }),
              HasSubstr("no matrix"));
  EXPECT_THAT(error_of([] {
                FloatTensor{DType::f4, {2}, bytes_of(std::string(1, '\0'))}.to_matrix();
              }),
              HasSubstr("f4"));
  EXPECT_THAT(error_of([] {
                FloatTensor{DType::c64, {1}, bytes_of(std::string(8, '\0'))}.to_matrix();
              }),
              HasSubstr("complex"));
}

TEST_F(Open, ShardsAreReadThroughTheIndex) {
  put("config.json", "{}");
  put_safetensors("model-00001-of-00002.safetensors", {{"a", DType::f32, {2}}, {"extra", DType::f32, {2}}});
  put_safetensors("model-00002-of-00002.safetensors", {{"b", DType::f16, {2, 2}}});
  const std::string a = R"("a":"model-00001-of-00002.safetensors")", b = R"("b":"model-00002-of-00002.safetensors")";
  put("model.safetensors.index.json", R"({"metadata":{"total_size":16},"weight_map":{)" + a + "," + b + "}}");
  const auto checkpoint = open();
  EXPECT_TRUE(checkpoint->has("a") && checkpoint->has("b") && !checkpoint->has("extra"));
  EXPECT_THAT(checkpoint->warnings(), ::testing::ElementsAre(HasSubstr("extra")));

  put("model.safetensors.index.json", R"({"weight_map":{)" + a + R"(,"c":"model-00002-of-00002.safetensors"}})");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("lacks a tensor"), HasSubstr("expected c")));
  put("model.safetensors.index.json", R"({"weight_map":{)" + a + R"(,"c":"model-00003-of-00003.safetensors"}})");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("shard of the model is missing"), HasSubstr("model-00003")));
  put("model.safetensors.index.json", R"({"weight_map":{"a":"model.txt"}})");
  EXPECT_THAT(refusal(), HasSubstr("no file of weights"));
}

TEST_F(Open, TheSameTensorInTwoShardsIsTakenFromTheIndexed) {
  put("config.json", "{}");
  put_safetensors("x.safetensors", {{"a", DType::f32, {1}}});
  put_safetensors("y.safetensors", {{"a", DType::f32, {2}}, {"b", DType::f32, {2}}});
  put("model.safetensors.index.json", R"({"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})");
  EXPECT_EQ(open()->find("a")->shape, (std::vector<int64_t>{1}));
}

// What safetensors' save_model leaves when it drops a tied tensor.
TEST_F(Open, AliasesInTheMetadataAreFollowed) {
  put("config.json", "{}");
  put_safetensors("model.safetensors", {{"lm_head.weight", DType::f32, {2, 3}}},
                  {{"format", "pt"}, {"model.embed_tokens.weight", "lm_head.weight"}, {"other", "not a tensor"}});
  const auto checkpoint = open();
  EXPECT_TRUE(checkpoint->has("model.embed_tokens.weight"));
  EXPECT_EQ(checkpoint->shape_of("model.embed_tokens.weight"), (Shape{2, 3}));
  EXPECT_EQ(std::get<FloatTensor>(checkpoint->load("model.embed_tokens.weight")).bytes.data(),
            checkpoint->find("lm_head.weight")->bytes.data());
  EXPECT_FALSE(checkpoint->has("other"));
  EXPECT_FALSE(checkpoint->has("format"));
  EXPECT_EQ(checkpoint->tensors().size(), 1u);
}

TEST_F(Open, FilesAreKnownByTheirContent) {
  put("weights.anything", gguf_example());
  const auto checkpoint = open("weights.anything");
  EXPECT_EQ(checkpoint->format(), Format::gguf);
  EXPECT_EQ(checkpoint->quantization(), "q4_0");
  EXPECT_EQ(checkpoint->metadata().text("general.architecture"), "llama");
  EXPECT_EQ(checkpoint->shape_of("output_norm.weight"), (Shape{1, 2}));
  EXPECT_EQ(std::get<FloatTensor>(checkpoint->load("output_norm.weight")).to_matrix()(0, 1), 2.0f);
  const auto q = std::get<Quantized>(checkpoint->load("blk.0.ffn_up.weight"));
  EXPECT_EQ(q.shape(), (Shape{2, 32}));
  EXPECT_EQ(dequantize(q)(0, 0), (2 - 8) * 0.09765625f);
  EXPECT_EQ(name_of(*checkpoint->grid_of_weight("blk.0.ffn_up.weight")), "q4_0");
  EXPECT_FALSE(checkpoint->grid_of_weight("output_norm.weight").has_value());
  checkpoint->forget("blk.0.ffn_up.weight");
  EXPECT_THAT(error_of([&] { checkpoint->load("nothing"); }), HasSubstr("nothing"));
}

TEST_F(Open, ADirectoryWithOneGguf) {
  put("only.gguf", gguf_example());
  EXPECT_EQ(open()->path(), directory_ / "only.gguf");
  put("another.gguf", gguf_example());
  EXPECT_THAT(refusal(), AllOf(HasSubstr("several"), HasSubstr("another.gguf, only.gguf")));
}

TEST_F(Open, UnreadTypesAreListedButRefused) {
  put("t.gguf", GgufImage{.tensors = {{.name = "blk.0.x.weight", .ne = {32}, .type = 9}}}.bytes());
  const auto checkpoint = open("t.gguf");
  EXPECT_EQ(checkpoint->tensors()[0].type, "q8_1");
  EXPECT_EQ(checkpoint->quantization(), "q8_1");
  EXPECT_THAT(error_of([&] { checkpoint->load("blk.0.x.weight"); }), AllOf(HasSubstr("q8_1"), HasSubstr("not read")));
}

TEST_F(Open, StackedAndSplitGgufAreRefused) {
  put("t.gguf", GgufImage{.tensors = {{.name = "x", .ne = {32, 1, 2}, .type = 2}}}.bytes());
  EXPECT_THAT(error_of([&] { open("t.gguf")->load("x"); }), HasSubstr("stacked"));
  put("t.gguf", GgufImage{.keys = {raw_string("split.count") + raw<int32_t>(2) + raw<uint16_t>(3)}}.bytes());
  EXPECT_THAT(refusal("t.gguf"), HasSubstr("split model"));
}

// One tensor of four floats in part `number` of `count`.
std::string part(const std::string& tensor, uint16_t number, uint16_t count, int32_t tensors) {
  return GgufImage{.keys = {raw_string("split.no") + raw<int32_t>(2) + raw(number),
                            raw_string("split.count") + raw<int32_t>(2) + raw(count),
                            raw_string("split.tensors.count") + raw<int32_t>(5) + raw(tensors)},
                   .tensors = {{.name = tensor}},
                   .data_bytes = 32}
      .bytes();
}

TEST_F(Open, SplitGgufByAnyPartOrTheDirectory) {
  put("m-00001-of-00003.gguf", part("a", 0, 3, 3));
  put("m-00002-of-00003.gguf", part("b", 1, 3, 3));
  put("m-00003-of-00003.gguf", part("c", 2, 3, 3));
  for (const char* name : {"m-00001-of-00003.gguf", "m-00003-of-00003.gguf", ""}) {
    const auto checkpoint = *name ? open(name) : open();
    ASSERT_EQ(checkpoint->tensors().size(), 3u) << name;
    EXPECT_EQ(checkpoint->tensors()[1].name, "b");
    EXPECT_EQ(checkpoint->tensors()[1].file.filename(), "m-00002-of-00003.gguf");
    EXPECT_EQ(checkpoint->path().filename(), "m-00001-of-00003.gguf");
    EXPECT_EQ(std::get<FloatTensor>(checkpoint->load("c")).to_matrix().cols(), 4);
  }
}

TEST_F(Open, SplitGgufThatIsNotWhole) {
  put("m-00001-of-00002.gguf", part("a", 0, 2, 2));
  EXPECT_THAT(refusal("m-00001-of-00002.gguf"), AllOf(HasSubstr("missing"), HasSubstr("m-00002-of-00002.gguf")));
  put("m-00002-of-00002.gguf", part("b", 0, 2, 2));
  EXPECT_THAT(refusal("m-00001-of-00002.gguf"), HasSubstr("split.no 1"));
  put("m-00002-of-00002.gguf", part("a", 1, 2, 2));
  EXPECT_THAT(refusal("m-00001-of-00002.gguf"), HasSubstr("same tensor"));
  put("m-00002-of-00002.gguf", part("b", 1, 2, 5));
  put("m-00001-of-00002.gguf", part("a", 0, 2, 5));
  EXPECT_THAT(refusal("m-00002-of-00002.gguf"), AllOf(HasSubstr("5 tensors"), HasSubstr("got 2")));
}

TEST_F(Open, ASecondScaleBesideNvfp4IsRefused) {
  const GgufImage::Tensor weight{.name = "blk.0.x.weight", .ne = {64}, .type = 40};
  put("t.gguf", GgufImage{.tensors = {weight}, .data_bytes = 64}.bytes());
  EXPECT_TRUE(std::holds_alternative<Quantized>(open("t.gguf")->load("blk.0.x.weight")));
  put("t.gguf",
      GgufImage{.tensors = {weight, {.name = "blk.0.x.scale", .ne = {1}, .offset = 64}}, .data_bytes = 96}.bytes());
  EXPECT_THAT(error_of([&] { open("t.gguf")->load("blk.0.x.weight"); }), HasSubstr("blk.0.x.scale"));
}

TEST_F(Open, PlainNumbersOfEveryWidth) {
  const std::pair<int32_t, DType> types[] = {{24, DType::i8},  {25, DType::i16}, {26, DType::i32},
                                             {27, DType::i64}, {28, DType::f64}, {30, DType::bf16}};
  for (const auto& [id, type] : types) {
    GgufImage image{.tensors = {{.name = "x", .type = id}}, .data_bytes = 32};
    std::string bytes = image.bytes();
    std::fill(bytes.end() - 32, bytes.end(), '\0');
    if (type == DType::f64) bytes[bytes.size() - 32 + 6] = '\x08', bytes[bytes.size() - 32 + 7] = '\x40';  // 3
    if (type == DType::bf16) bytes[bytes.size() - 32] = '\x40', bytes[bytes.size() - 32 + 1] = '\x40';     // 3
    if (!info(type).floating) bytes[bytes.size() - 32] = '\3';
    put("t.gguf", bytes);
    const auto checkpoint = open("t.gguf");
    const auto weight = checkpoint->load("x");
    EXPECT_EQ(std::get<FloatTensor>(weight).dtype, type);
    EXPECT_EQ(std::get<FloatTensor>(weight).to_matrix()(0, 0), 3);
    EXPECT_EQ(std::get<FloatTensor>(weight).to_matrix()(0, 1), 0);
  }
}

TEST_F(Open, NothingToOpen) {
  EXPECT_THAT(refusal("missing"), HasSubstr("no such file"));
  EXPECT_THAT(refusal(), AllOf(HasSubstr("no model here"), HasSubstr("model.safetensors")));
  put("config.json", "{}");
  put("pytorch_model.bin", "PK\x03\x04");
  EXPECT_THAT(refusal(), HasSubstr("the archive has no end record"));
  EXPECT_THAT(refusal("pytorch_model.bin"), HasSubstr("the archive has no end record"));
  put("note.txt", "hello");
  EXPECT_THAT(refusal("note.txt"), HasSubstr("neither"));
  put("empty", "");
  EXPECT_THAT(refusal("empty"), HasSubstr("neither"));
}

TEST_F(Open, ConfigsThatCannotBeUsed) {
  put_safetensors("model.safetensors", {{"a", DType::f32, {1}}});
  EXPECT_THAT(refusal(), HasSubstr("no config.json"));
  put("config.json", "[]");
  EXPECT_THAT(refusal(), HasSubstr("no JSON object"));
  put("config.json", "{\"a\":");
  EXPECT_THAT(refusal(), HasSubstr("JSON"));
  put("config.json", R"({"quantization_config":{"quant_method":"hqq"}})");
  EXPECT_THAT(refusal(), HasSubstr("hqq"));
  put("config.json", R"({"quantization_config":null})");
  EXPECT_EQ(open()->quantization(), "none");
}

TEST_F(Open, SeveralFilesWithoutAnIndex) {
  put("config.json", "{}");
  put_safetensors("a.safetensors", {{"a", DType::f32, {1}}});
  EXPECT_TRUE(open()->has("a"));
  put_safetensors("b.safetensors", {{"b", DType::f32, {1}}});
  EXPECT_THAT(refusal(), AllOf(HasSubstr("several"), HasSubstr("index")));
}

TEST(GoldenCheckpoints, RealModelsOpen) {
  PARE_NEEDS_SHARED("testdata/models");
  int opened = 0;
  for (const auto& at : fs::directory_iterator(shared("testdata/models"))) {
    const auto checkpoint = Checkpoint::open(at.path());
    for (const StoredTensor& t : checkpoint->tensors())
      EXPECT_NO_THROW(checkpoint->load(t.name)) << at.path() << t.name;
    ++opened;
  }
  EXPECT_GE(opened, 4);
  EXPECT_TRUE(Checkpoint::open(shared("testdata/models/tinystories-656k-hf"))->has("model.embed_tokens.weight"));
}

}  // namespace
}  // namespace pare::test
