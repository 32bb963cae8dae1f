// GGUF in both directions, against the reference converter's listings and llama.cpp's logits (../shared/golden/gguf).
#include "pare/container/gguf.h"

#include <bit>

#include "pare/base/sha256.h"
#include "pare/model/gguf_export.h"
#include "tests/model/models.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;

// The bytes of a planned tensor in f32, as a GGUF file of type F32 holds them.
std::vector<float> values_of(const Config& config, const Arch& arch, const Checkpoint& checkpoint,
                             const GgufTensorPlan& plan) {
  const Weight weight = checkpoint.load(plan.hf_name);
  Matrix m = std::get<FloatTensor>(weight).to_matrix();
  if (plan.transposed) m = transposed(m);
  const bool vector = plan.shape.size() == 1;
  if (plan.row_order == RowOrder::as_is) return {m.values().begin(), m.values().end()};
  const auto order = gguf_row_permutation(config, *find_tensor(arch, plan.role), plan.shape[0]);
  const int64_t width = vector ? 1 : m.cols();
  std::vector<float> out;
  for (const int64_t r : order) out.insert(out.end(), m.data() + r * width, m.data() + (r + 1) * width);
  return out;
}

// An HF model as a GGUF file of f32.
void export_f32(const fs::path& from, const fs::path& to) {
  const auto checkpoint = Checkpoint::open(from);
  const Config config = read_config(*checkpoint);
  const Arch& arch = find_arch(config.architecture);
  std::vector<GgufSlot> slots;
  std::vector<std::vector<float>> values;
  const GgmlTypeInfo* f32 = find_ggml_type("f32");
  for (auto& [name, v] : gguf_extra_tensors(config)) {
    slots.push_back({name, f32, {static_cast<int64_t>(v.size())}});
    values.push_back(v);
  }
  for (const GgufTensorPlan& plan : gguf_tensors(config, arch, *checkpoint)) {
    slots.push_back({plan.gguf_name, f32, plan.shape});
    values.push_back(values_of(config, arch, *checkpoint, plan));
  }
  GgufWriter writer(to, gguf_metadata(config, arch, checkpoint->config(), "Test"), slots);
  for (size_t i = 0; i < slots.size(); ++i) writer.add(slots[i].name, std::as_bytes(std::span<const float>(values[i])));
  writer.commit();
}

class Converter : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    PARE_NEEDS_SHARED("golden/gguf/archs");
    from_ = shared("golden/gguf/archs") / GetParam();
    listing_ = read_json_file(shared(std::string("golden/gguf/archs/") + GetParam() + ".json").string());
    checkpoint_ = Checkpoint::open(from_);
    config_ = read_config(*checkpoint_);
  }
  const Arch& arch() const { return find_arch(config_.architecture); }
  fs::path from_;
  Json listing_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  Config config_;
};
INSTANTIATE_TEST_SUITE_P(Golden, Converter,
                         testing::Values("llama-bias-headdim", "llama-sharded", "llama2-spm", "llama3-rope", "mistral",
                                         "qwen2", "qwen3", "gpt2"),
                         [](const auto& one) {
                           std::string name = one.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

std::string text_of(const MetaValue& value) {
  if (const auto* s = std::get_if<std::string>(&value)) return "string " + *s;
  if (const auto* u = std::get_if<uint32_t>(&value)) return "uint32 " + std::to_string(*u);
  if (const auto* f = std::get_if<float>(&value)) return "float32 bits " + std::to_string(std::bit_cast<uint32_t>(*f));
  return "another type";
}
std::string text_of(const Json& kv) {
  const std::string type = kv["type"];
  if (type == "string") return "string " + kv["value"].get<std::string>();
  if (type == "float32")
    return "float32 bits " + std::to_string(std::stoul(kv["bits"].get<std::string>(), nullptr, 16));
  return type + " " + kv["value"].dump();
}

TEST_P(Converter, SameKeysInTheSameOrder) {
  int64_t parameters = 0;
  for (const Json& t : listing_["f32"]["tensors"]) parameters += t["nbytes"].get<int64_t>() / 4;
  const Metadata got =
      gguf_metadata(config_, arch(), checkpoint_->config(), gguf_model_name(from_), parameters, uint32_t{0});
  std::vector<std::pair<std::string, std::string>> expected, ours;
  for (const Json& kv : listing_["f32"]["kv"]) {
    const std::string key = kv["key"];
    if (key.starts_with("tokenizer.") || key == "general.quantization_version") continue;
    expected.emplace_back(key, text_of(kv));
  }
  for (const auto& [key, value] : got.entries()) ours.emplace_back(key, text_of(value));
  EXPECT_EQ(ours, expected);
}

TEST_P(Converter, SameTensorsWithTheSameBytes) {
  std::vector<std::string> expected, ours;
  for (const Json& t : listing_["f32"]["tensors"])
    expected.push_back(t["name"].get<std::string>() + " " + t["ne"].dump() + " " + t["sha256"].get<std::string>());
  const auto line = [&](const std::string& name, std::vector<int64_t> shape, const std::vector<float>& values) {
    std::reverse(shape.begin(), shape.end());
    ours.push_back(name + " " + Json(shape).dump() + " " + sha256_of(std::as_bytes(std::span<const float>(values))));
  };
  for (const auto& [name, values] : gguf_extra_tensors(config_))
    line(name, {static_cast<int64_t>(values.size())}, values);
  for (const GgufTensorPlan& plan : gguf_tensors(config_, arch(), *checkpoint_))
    line(plan.gguf_name, plan.shape, values_of(config_, arch(), *checkpoint_, plan));
  EXPECT_EQ(ours, expected);
}

TEST_P(Converter, KeepsTheSameTensorsInF32) {
  std::map<std::string, std::string> types;
  for (const Json& t : listing_["f16"]["tensors"]) types[t["name"]] = t["type"];
  for (const GgufTensorPlan& plan : gguf_tensors(config_, arch(), *checkpoint_))
    EXPECT_EQ(plan.kept_f32, types.at(plan.gguf_name) == "F32") << plan.gguf_name;
}

// Our export, read again, computes what llama.cpp computes from its own (whose GELU goes through a table of f16).
TEST_P(Converter, TheExportRunsAsInLlamaCpp) {
  TemporaryDirectory dir;
  export_f32(from_, dir / "model.gguf");
  const Decoder model(Checkpoint::open(dir / "model.gguf")), original(checkpoint_);
  const auto tokens = listing_["about"]["tokens"].get<std::vector<int32_t>>();
  const Matrix logits = model.logits(tokens);
  const Matrix expected = golden_tensor(shared("golden/gguf/archs/logits.safetensors"), GetParam());
  EXPECT_LT(relative_difference(MatrixView(logits), expected), std::string(GetParam()) == "gpt2" ? 2e-3 : 1e-5);
  EXPECT_LT(relative_difference(MatrixView(logits), original.logits(tokens)), 2e-6);
}

// What llama.cpp computes in f32 from the same file turned back into floats.
TEST(QuantizedGguf, LogitsOfPackedWeights) {
  PARE_NEEDS_SHARED("golden/gguf/logits.safetensors");
  std::vector<int32_t> tokens;
  for (int i = 0; i < 24; ++i) tokens.push_back((i * 37 + 11) % 512);
  for (const std::string name : {"a-q4_0",           "a-q8_0",           "a-q4_k_m",
                                 "a-q6_k",           "a-q4_1",           "a-q5_0",
                                 "a-q5_1",           "a-q2_k",           "a-q3_k_m",
                                 "a-q5_k_m",         "a-iq4_nl",         "a-iq4_xs",
                                 "a-mxfp4_moe.pure", "a-nvfp4.override", "a-q1_0",
                                 "a-q2_0",           "a-tq1_0",          "a-tq2_0",
                                 "a-iq1_s.imatrix",  "a-iq1_m.imatrix",  "a-iq2_xxs.imatrix",
                                 "a-iq2_xs.imatrix", "a-iq2_m.imatrix",  "a-iq3_xxs.imatrix",
                                 "a-iq3_s"}) {
    const Decoder model(Checkpoint::open(shared("golden/gguf/" + name + ".gguf")));
    const Matrix expected = golden_tensor(shared("golden/gguf/logits.safetensors"), name + "/dequant");
    EXPECT_LT(relative_difference(MatrixView(model.logits(tokens)), expected), 2e-5) << name;
    EXPECT_LT(model.weight_bytes(), 853'000 * 10 / 8) << name;
  }
}

TEST(GgufModel, OfAnotherTool) {
  PARE_NEEDS_SHARED("testdata/models/llama-2-tiny-random.gguf");
  const Decoder model(Checkpoint::open(shared("testdata/models/llama-2-tiny-random.gguf")));
  const auto tokens = some_tokens(9, model.config().vocab);
  const Matrix whole = model.logits(tokens);
  KvCache cache(model.config(), 9);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const Matrix one = model.forward({&tokens[i], 1}, cache, true);
    const auto at = static_cast<int64_t>(i);
    EXPECT_LT(relative_difference(one, MatrixView(whole).rows_between(at, at + 1)), 1e-5);
  }
}

// ---- without the reference data

std::vector<std::pair<std::string, TinyModel>> exportable() {
  LlamaOptions biased;
  biased.attention_bias = biased.mlp_bias = true;
  LlamaOptions wide;
  wide.head_dim = 12;
  wide.tied = true;
  LlamaOptions qwen2;
  qwen2.hf_class = "Qwen2ForCausalLM";
  LlamaOptions qwen3;
  qwen3.hf_class = "Qwen3ForCausalLM";
  qwen3.qk_norm = true;
  TinyModel yarn = llama_like({}), llama3 = yarn, linear = yarn;
  yarn.config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 16}};
  TinyModel factored = yarn;
  factored.config["rope_scaling"]["attention_factor"] = 1.25;
  llama3.config["rope_scaling"] = {{"rope_type", "llama3"}, {"factor", 8.0}, {"original_max_position_embeddings", 16}};
  linear.config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};
  return {{"llama", llama_like({})},
          {"biased", llama_like(biased)},
          {"wide", llama_like(wide)},
          {"qwen2", llama_like(qwen2)},
          {"qwen3", llama_like(qwen3)},
          {"gpt2", gpt2_like()},
          {"yarn", yarn},
          {"factored", factored},
          {"llama3", llama3},
          {"linear", linear}};
}

TEST(GgufModel, AnExportComputesWhatItsSourceComputes) {
  for (const auto& [name, tiny] : exportable()) {
    TemporaryDirectory dir;
    write_model(tiny, dir / "hf");
    export_f32(dir / "hf", dir / "model.gguf");
    const Decoder source(Checkpoint::open(dir / "hf")), copy(Checkpoint::open(dir / "model.gguf"));
    const auto tokens = some_tokens(21, 50);
    EXPECT_LT(relative_difference(MatrixView(copy.logits(tokens)), source.logits(tokens)), 2e-6) << name;
    EXPECT_EQ(copy.config().attention_bias, source.config().attention_bias) << name;
    EXPECT_EQ(copy.config().tied_head, source.config().tied_head) << name;
  }
}

TEST(GgufModel, APlanOfAGgufFileKeepsItAsItIs) {
  TemporaryDirectory dir;
  write_model(exportable()[8].second, dir / "hf");  // llama3: with rope_freqs
  export_f32(dir / "hf", dir / "model.gguf");
  const auto checkpoint = Checkpoint::open(dir / "model.gguf");
  const Config config = read_config(*checkpoint);
  size_t count = gguf_extra_tensors(config).size();
  EXPECT_EQ(count, 1u);
  for (const GgufTensorPlan& plan : gguf_tensors(config, find_arch("llama"), *checkpoint)) {
    EXPECT_EQ(plan.hf_name, plan.gguf_name);
    EXPECT_EQ(plan.row_order, RowOrder::as_is);
    EXPECT_EQ(plan.shape, checkpoint->find(plan.hf_name)->shape);
    ++count;
  }
  EXPECT_EQ(count, checkpoint->tensors().size());
}

TEST(GgufModel, PermutationsAreInverses) {
  Config config;
  config.head_dim = 6;
  const TensorName& q = *find_tensor(find_arch("llama"), Role::q);
  const auto there = gguf_row_permutation(config, q, 12), back = gguf_row_permutation(config, q, 12, true);
  EXPECT_EQ(there, (std::vector<int64_t>{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}));
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(there[static_cast<size_t>(back[i])], static_cast<int64_t>(i));
  EXPECT_TRUE(gguf_row_permutation(config, *find_tensor(find_arch("llama"), Role::v), 12).empty());
  EXPECT_TRUE(gguf_row_permutation(config, *find_tensor(find_arch("qwen2"), Role::q), 12).empty());
}

TEST(GgufModel, BuffersAndRepeatedHeadsAreLeftOut) {
  TemporaryDirectory dir;
  TinyModel gpt2 = gpt2_like();
  const size_t weights = gpt2.tensors.size();
  gpt2.tensors["transformer.h.0.attn.bias"] = {{24, 24}, std::vector<float>(24 * 24)};
  gpt2.tensors["lm_head.weight"] = gpt2.at("transformer.wte.weight");
  const auto checkpoint = stored(gpt2, dir / "gpt2");
  EXPECT_EQ(gguf_tensors(read_config(*checkpoint), find_arch("gpt2"), *checkpoint).size(), weights);

  TinyModel stranger = llama_like({});
  stranger.tensors["vision_tower.patch.weight"] = {{2, 2}, {1, 2, 3, 4}};
  const auto other = stored(stranger, dir / "stranger");
  const Config config = read_config(*other);
  EXPECT_NE(error_of([&] { gguf_tensors(config, find_arch("llama"), *other); }).where.find("vision_tower"),
            std::string::npos);
}

TEST(GgufModel, OptIsRefused) {
  TemporaryDirectory dir;
  const auto opt = stored(opt_like(true, 32), dir.path());
  const Config config = read_config(*opt);
  EXPECT_THROW(gguf_tensors(config, find_arch("opt"), *opt), Error);
  EXPECT_THROW(gguf_metadata(config, find_arch("opt"), opt->config(), "x"), Error);
}

TEST(GgufModel, NamesComeFromFolders) {
  EXPECT_EQ(gguf_model_name("/models/llama-bias-headdim"), "Llama Bias Headdim");
  EXPECT_EQ(gguf_model_name("/models/llama-bias-headdim/"), "Llama Bias Headdim");
  EXPECT_EQ(gguf_model_name("ernie4_5-moe"), "Ernie4_5 Moe");
  EXPECT_EQ(gguf_model_name("TinyLlama-1.1B-chat-v1.0"), "TinyLlama 1.1B Chat v1.0");
  EXPECT_EQ(gguf_model_name("hf--a"), "Hf A");
}

TEST(GgufModel, SizeLabels) {
  TemporaryDirectory dir;
  const auto checkpoint = stored(llama_like({}), dir.path());
  const Config config = read_config(*checkpoint);
  for (const auto& [count, label] : std::vector<std::pair<int64_t, std::string>>{{45248, "45K"},
                                                                                 {999, "1.0K"},
                                                                                 {1'580'000, "1.6M"},
                                                                                 {9'960'000, "10M"},
                                                                                 {135'000'000, "135M"},
                                                                                 {8'030'000'000, "8.0B"},
                                                                                 {1'100'000'000'000, "1.1T"}})
    EXPECT_EQ(gguf_metadata(config, find_arch("llama"), checkpoint->config(), "x", count).text("general.size_label"),
              label);
}

// A GGUF file whose keys lie.
TEST(GgufModel, BadKeysAreRefused) {
  TemporaryDirectory dir;
  write_model(llama_like({}), dir / "hf");
  const auto source = Checkpoint::open(dir / "hf");
  const Config config = read_config(*source);
  const auto refusal = [&](const std::function<void(Metadata&)>& edit) {
    Metadata metadata = gguf_metadata(config, find_arch("llama"), source->config(), "x");
    edit(metadata);
    std::vector<GgufSlot> slots;
    const auto plans = gguf_tensors(config, find_arch("llama"), *source);
    for (const auto& plan : plans) slots.push_back({plan.gguf_name, find_ggml_type("f32"), plan.shape});
    GgufWriter writer(dir / "bad.gguf", metadata, slots);
    for (const auto& plan : plans)
      writer.add(plan.gguf_name,
                 std::as_bytes(std::span<const float>(values_of(config, find_arch("llama"), *source, plan))));
    writer.commit();
    const auto checkpoint = Checkpoint::open(dir / "bad.gguf");
    const ErrorInfo error = error_of([&] { read_config(*checkpoint); });
    fs::remove(dir / "bad.gguf");
    return error;
  };
  const ErrorInfo unknown = refusal([](Metadata& m) { m.set("general.architecture", std::string("mystery")); });
  EXPECT_EQ(unknown.got, "mystery");
  EXPECT_NE(unknown.expected.find("llama, qwen2, qwen3"), std::string::npos);
  EXPECT_FALSE(refusal([](Metadata& m) { m.set("llama.block_count", uint32_t{0}); }).what.empty());
  EXPECT_FALSE(refusal([](Metadata& m) { m.set("llama.block_count", uint32_t{4'000'000'000}); }).what.empty());
  EXPECT_FALSE(refusal([](Metadata& m) { m.set("llama.block_count", std::string("two")); }).what.empty());
  EXPECT_FALSE(refusal([](Metadata& m) { m.set("llama.attention.head_count", uint32_t{0}); }).what.empty());
  EXPECT_EQ(refusal([](Metadata& m) { m.set("llama.embedding_length", uint32_t{64}); }).got, "[50, 32]");
  EXPECT_EQ(refusal([](Metadata& m) { m.set("llama.rope.scaling.type", std::string("longrope")); }).got, "longrope");
  EXPECT_EQ(refusal([](Metadata& m) { m.set("llama.attention.value_length", uint32_t{4}); }).got, "4");
}

}  // namespace
}  // namespace pare::test
