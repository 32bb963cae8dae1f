// What is written is what is read: every grid into every container.
#include "pare/container/container.h"

#include <numeric>
#include <stdexcept>

#include "pare/base/threads.h"
#include "pare/container/checkpoint.h"
#include "pare/container/safetensors.h"
#include "tests/container/files.h"

namespace pare::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

std::vector<Grid> all_grids() {
  std::vector<Grid> out = {BlockSpec{BlockSpec::Type::q4_0}, BlockSpec{BlockSpec::Type::q8_0},
                           SuperBlockSpec{SuperBlockSpec::Type::q4_k}, SuperBlockSpec{SuperBlockSpec::Type::q6_k}};
  for (int bits = 2; bits <= 8; ++bits)
    for (const int64_t group : {0, 32, 128})
      for (const bool symmetric : {true, false}) out.push_back(AffineSpec{bits, group, symmetric, 0});
  out.push_back(AffineSpec{.bits = 8, .group = 0, .rows = 0});
  for (const CodebookSpec::Levels levels : {CodebookSpec::Levels::nf4, CodebookSpec::Levels::fp4})
    out.push_back(CodebookSpec{.levels = levels, .scale = ScaleKind::f32, .group = 64});
  out.push_back(CodebookSpec{.levels = CodebookSpec::Levels::e2m1, .scale = ScaleKind::e8m0, .group = 32});
  out.insert(out.end(), shared_grids().begin(), shared_grids().end());
  return out;
}

std::vector<int32_t> shuffled_groups(int64_t cols, int64_t group) {
  std::vector<int32_t> order(static_cast<size_t>(cols));
  const int64_t groups = cols / group;
  for (int64_t c = 0; c < cols; ++c)
    order[static_cast<size_t>(c)] = static_cast<int32_t>(c % group * groups + c / group);
  return order;
}

class Containers : public ::testing::Test {
 protected:
  Containers() { set_threads(1); }  // the matrices are tiny
  ~Containers() override { set_threads(0); }
  TemporaryDirectory directory_;
};

TEST_F(Containers, EveryGridIsHeldExactlyOrRefusedInWords) {
  int held = 0, refused = 0;
  std::map<std::string, int> by_container;
  for (const Container& container : all_containers())
    for (const Grid& wanted : all_grids())
      for (const bool ordered : {false, true}) {
        SCOPED_TRACE(std::string(container.name) + " " + name_of(wanted) + (ordered ? " ordered" : ""));
        const Shape shape{64, 512};
        Verdict verdict = container.accept(wanted, ordered);
        if (verdict.grid && container.place) verdict = container.place(*verdict.grid, shape, DType::f16);
        if (!verdict.grid) {
          EXPECT_FALSE(verdict.why.empty());
          EXPECT_FALSE(verdict.remedy.empty());
          ++refused;
          continue;
        }
        ++by_container[std::string(container.name)];
        Quantized q = random_quantized(*verdict.grid, shape, static_cast<unsigned>(++held));
        if (ordered) q.order = shuffled_groups(shape.cols, q.window());
        if (std::is_sorted(q.order.begin(), q.order.end())) q.order.clear();  // one group: the order is not stored

        OutputPlan plan;
        plan.tensors = {{"blk.0.w.weight", {64, 512}, verdict.grid, DType::f32, ordered},
                        {"blk.0.norm.weight", {5}, {}, DType::f32, false}};
        const fs::path path = directory_ / ("out" + std::to_string(held));
        auto writer = container.create(path, plan, false);
        writer->add("blk.0.norm.weight", bytes_of(std::vector<float>{1, 2, 3, 4, 5}));
        writer->add("blk.0.w.weight", q);
        writer->seal();
        EXPECT_FALSE(fs::exists(path));
        const auto staged = Checkpoint::open(writer->staged());
        expect_equal(std::get<Quantized>(staged->load("blk.0.w.weight")), q);
        writer->commit();
        const auto read = Checkpoint::open(path);
        expect_equal(std::get<Quantized>(read->load("blk.0.w.weight")), q);
        EXPECT_EQ(std::get<FloatTensor>(read->load("blk.0.norm.weight")).to_matrix()(0, 4), 5.0f);
        EXPECT_EQ(read->file_bytes(), container.output_bytes(plan));
        EXPECT_TRUE(read->grid_of_weight("blk.0.w.weight") == q.grid());
      }
  EXPECT_EQ(by_container["gptq"], 4 * 3 * 2 * 2);
  EXPECT_EQ(by_container["gptq_v2"], 4 * 3 * 2 * 2);
  EXPECT_EQ(by_container["gptq_p"], 7 * 3 * 2 * 2);
  EXPECT_EQ(by_container["awq"], 3 * 2);
  EXPECT_EQ(by_container["compressed-tensors"], 7 * 3 * 2 + 6);   // fp8 three ways, mxfp8, mxfp4, nvfp4
  EXPECT_EQ(by_container["compressed-tensors-w8a8"], 3 + 1 + 3);  // int8 by row, group and matrix, fp8
  EXPECT_EQ(by_container["bnb"], 5);
  EXPECT_EQ(by_container["mlx"], 6 * 2 * 2 + 1);
  EXPECT_EQ(by_container["gguf"], 4 + 1);
  EXPECT_GT(refused, 50);
}

TEST_F(Containers, GptqVersionOneNarrowsTheZeroPoint) {
  const Grid asymmetric = AffineSpec{.bits = 4, .group = 32, .symmetric = false};
  EXPECT_EQ(std::get<AffineSpec>(*find_container("gptq").accept(asymmetric, false).grid).lowest_zero, 1);
  EXPECT_EQ(std::get<AffineSpec>(*find_container("gptq_v2").accept(asymmetric, false).grid).lowest_zero, 0);
  const Grid symmetric = AffineSpec{.bits = 4, .group = 32};
  EXPECT_TRUE(*find_container("gptq").accept(symmetric, true).grid == symmetric);
  EXPECT_THAT(find_container("gptq").accept(AffineSpec{.bits = 5}, false).why, HasSubstr("not 5"));
  EXPECT_THAT(find_container("gguf").accept(BlockSpec{}, true).why, HasSubstr("order"));
  EXPECT_THAT(error_of([] { find_container("nothing"); }), AllOf(HasSubstr("gptq_v2"), HasSubstr("gguf")));
}

// ---- a directory in shards

struct Model {
  OutputPlan plan;
  std::map<std::string, Quantized> quantized;

  explicit Model(int64_t max_shard_bytes) {
    const Grid grid = AffineSpec{.bits = 4, .group = 32};
    plan.max_shard_bytes = max_shard_bytes;
    plan.config = Json::parse(R"({"architectures":["LlamaForCausalLM"],"hidden_size":64})");
    plan.tensors.push_back({"model.embed_tokens.weight", {100, 64}, {}, DType::f16, false});
    for (int layer = 0; layer < 3; ++layer) {
      const std::string name = "model.layers." + std::to_string(layer) + ".mlp.up_proj.weight";
      plan.tensors.push_back({name, {96, 64}, grid, DType::f16, true});
      quantized.emplace(name, random_quantized(grid, {96, 64}, static_cast<unsigned>(layer)));
    }
    quantized.begin()->second.order = shuffled_groups(64, 32);
  }
  void write(Writer& writer) const {
    for (auto t = plan.tensors.rbegin(); t != plan.tensors.rend(); ++t)
      if (t->grid)
        writer.add(t->name, quantized.at(t->name));
      else
        writer.add(t->name, bytes_of(std::string(100 * 64 * 2, 'e')));
  }
};

TEST_F(Containers, ShardsAreCutBySizeAndIndexed) {
  write_bytes(directory_ / "tokenizer.json", "{\"a\":1}");
  Model model(8000);
  model.plan.carried = {directory_ / "tokenizer.json"};
  const fs::path out = directory_ / "out";
  auto writer = find_container("gptq").create(out, model.plan, false);
  model.write(*writer);
  writer->add_file("pare-report.json", "{}");
  writer->commit();

  const Json index = Json::parse(read_bytes(out / "model.safetensors.index.json"));
  std::set<std::string> shards;
  uint64_t data = 0, files = 0;
  for (const auto& [tensor, file] : index["weight_map"].items()) shards.insert(file);
  for (const std::string& shard : shards) {
    const auto file = SafetensorsFile::open(out / shard);
    EXPECT_EQ(file->metadata().at("format"), "pt");
    uint64_t size = 0;
    for (const auto& e : file->entries()) {
      EXPECT_EQ(index["weight_map"][e.name], shard);
      size += e.bytes.size();
    }
    EXPECT_TRUE(size <= 8000 || file->entries().size() == 1);
    data += size;
    files += fs::file_size(out / shard);
  }
  EXPECT_EQ(shards.size(), 3u);
  EXPECT_EQ(*shards.begin(), "model-00001-of-00003.safetensors");
  EXPECT_EQ(index["metadata"]["total_size"], data);
  EXPECT_EQ(find_container("gptq").output_bytes(model.plan), static_cast<int64_t>(files));
  EXPECT_EQ(read_bytes(out / "tokenizer.json"), "{\"a\":1}");
  EXPECT_EQ(read_bytes(out / "pare-report.json"), "{}");

  const Json config = Json::parse(read_bytes(out / "config.json"));
  EXPECT_EQ(config["hidden_size"], 64);
  EXPECT_EQ(config["quantization_config"]["desc_act"], true);
  EXPECT_EQ(config["quantization_config"], Json::parse(read_bytes(out / "quantize_config.json")));
  const auto read = Checkpoint::open(out);
  for (const auto& [name, q] : model.quantized) expect_equal(std::get<Quantized>(read->load(name)), q);
  EXPECT_THAT(read->warnings(), ::testing::IsEmpty());
}

TEST_F(Containers, PlainFloatsMakeAnOrdinaryDirectory) {
  OutputPlan plan;
  plan.config = Json::parse(R"({"hidden_size":4})");
  plan.tensors = {{"a.weight", {2, 4}, {}, DType::bf16, false}};
  auto writer = find_container("safetensors").create(directory_ / "out", plan, false);
  writer->add("a.weight", bytes_of(std::string(16, 'a')));
  writer->commit();
  EXPECT_EQ(Checkpoint::open(directory_ / "out")->quantization(), "none");
  EXPECT_FALSE(fs::exists(directory_ / "out" / "quantize_config.json"));
  EXPECT_FALSE(fs::exists(directory_ / "out" / "model.safetensors.index.json"));
}

// Else the model that was read through an alias could not be read again.
TEST_F(Containers, AliasesAreRecordedAgain) {
  OutputPlan plan;
  plan.tensors = {{"a.weight", {4}, {}, DType::f32, false}, {"b.weight", {4}, {}, DType::f32, false}};
  plan.max_shard_bytes = 16;
  plan.aliases = {{"tied.weight", "b.weight"}, {"lost.weight", "c.weight"}};
  const Container& container = find_container("safetensors");
  auto writer = container.create(directory_ / "out", plan, false);
  for (const char* name : {"a.weight", "b.weight"}) writer->add(name, bytes_of(std::string(16, '\0')));
  writer->commit();
  const auto read = Checkpoint::open(directory_ / "out");
  EXPECT_TRUE(read->has("tied.weight"));
  EXPECT_FALSE(read->has("lost.weight"));
  EXPECT_EQ(read->aliases().size(), 1u);
  EXPECT_EQ(read->file_bytes(), container.output_bytes(plan));
}

TEST_F(Containers, WritersHoldTheirUsersToThePlan) {
  Model model(1 << 20);
  auto writer = find_container("gptq").create(directory_ / "out", model.plan, false);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  EXPECT_THROW(writer->add("nothing", model.quantized.at(name)), std::logic_error);
  EXPECT_THROW(writer->add(name, bytes_of(std::string("x"))), std::logic_error);
  EXPECT_THROW(writer->add("model.embed_tokens.weight", model.quantized.at(name)), std::logic_error);
  EXPECT_THROW(writer->add(name, random_quantized(AffineSpec{.bits = 8, .group = 32}, {96, 64}, 1)), std::logic_error);
  EXPECT_THROW(writer->add(name, random_quantized(AffineSpec{.bits = 4, .group = 32}, {64, 96}, 1)), std::logic_error);
  EXPECT_THROW(writer->seal(), std::logic_error);
  writer.reset();
  EXPECT_TRUE(fs::is_empty(directory_.path()));

  OutputPlan odd;
  odd.tensors = {{"a.weight", {33, 64}, AffineSpec{.bits = 4, .group = 32}, DType::f16, false}};
  EXPECT_THAT(error_of([&] { find_container("gptq").output_bytes(odd); }),
              AllOf(HasSubstr("a.weight"), HasSubstr("33")));
}

// ---- one file

class GgufOutput : public Containers {
 protected:
  GgufOutput() {
    plan_.metadata.set("general.architecture", std::string("llama"));
    plan_.tensors = {{"blk.0.w.weight", {32, 256}, SuperBlockSpec{}, DType::f32, false},
                     {"blk.0.b.bias", {3}, {}, DType::f16, false}};
  }
  void write(Writer& writer) {
    writer.add("blk.0.b.bias", bytes_of(std::string("abcdef")));
    writer.add("blk.0.w.weight", random_quantized(SuperBlockSpec{}, {32, 256}, 1));
  }
  OutputPlan plan_;
};

TEST_F(GgufOutput, CompanionsStandBesideTheFile) {
  auto writer = find_container("gguf").create(directory_ / "model.gguf", plan_, false);
  write(*writer);
  writer->seal();
  writer->add_file("pare-report.json", "{}");
  EXPECT_FALSE(fs::exists(directory_ / "model.pare-report.json"));
  writer->commit();
  writer.reset();
  EXPECT_EQ(read_bytes(directory_ / "model.pare-report.json"), "{}");
  EXPECT_EQ(static_cast<int64_t>(fs::file_size(directory_ / "model.gguf")), find_container("gguf").output_bytes(plan_));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_.path()), {}), 2);
}

TEST_F(GgufOutput, NothingIsOverwrittenOrLeftBehind) {
  write_bytes(directory_ / "model.gguf", "old");
  EXPECT_THAT(error_of([&] { find_container("gguf").create(directory_ / "model.gguf", plan_, false); }),
              HasSubstr("exists"));
  write_bytes(directory_ / "other.pare-report.json", "old");
  {
    auto writer = find_container("gguf").create(directory_ / "other.gguf", plan_, false);
    write(*writer);
    EXPECT_THAT(error_of([&] { writer->add_file("pare-report.json", "new"); }), HasSubstr("exists"));
  }
  EXPECT_EQ(read_bytes(directory_ / "model.gguf"), "old");
  EXPECT_EQ(read_bytes(directory_ / "other.pare-report.json"), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_.path()), {}), 2);

  auto writer = find_container("gguf").create(directory_ / "model.gguf", plan_, true);
  write(*writer);
  EXPECT_EQ(read_bytes(directory_ / "model.gguf"), "old");
  writer->commit();
  EXPECT_EQ(Checkpoint::open(directory_ / "model.gguf")->quantization(), "q4_k");
}

TEST_F(GgufOutput, WantsAFileName) {
  EXPECT_THAT(error_of([&] { find_container("gguf").create(directory_.path(), plan_, true); }), HasSubstr("one file"));
  plan_.tensors[1].dtype = DType::u16;
  EXPECT_THAT(error_of([&] { find_container("gguf").output_bytes(plan_); }), HasSubstr("u16"));
}

TEST_F(Containers, AnExistingDirectoryIsKept) {
  Model model(1 << 20);
  fs::create_directory(directory_ / "out");
  write_bytes(directory_ / "out" / "precious", "x");
  EXPECT_THAT(error_of([&] { find_container("gptq").create(directory_ / "out", model.plan, false); }),
              HasSubstr("exists"));
  EXPECT_EQ(read_bytes(directory_ / "out" / "precious"), "x");
}

}  // namespace
}  // namespace pare::test
