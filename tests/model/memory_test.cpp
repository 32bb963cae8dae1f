// What a model may take of memory: nothing for mapped floats until they are used, and little more than the file for
// packed weights.
#include <fstream>

#include "pare/base/system.h"
#include "pare/container/gguf.h"
#include "tests/model/models.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCountsMemory = false;  // its own bookkeeping grows along
#else
constexpr bool kCountsMemory = true;
#endif
constexpr int64_t kMiB = 1 << 20;

// A Llama of four layers of 32 MiB each in f32, all zeros, most of the file a hole.
void write_hollow_model(const fs::path& directory) {
  LlamaOptions o;
  o.layers = 4;
  o.hidden = 512;
  o.ffn = 4778;
  o.heads = o.kv_heads = 8;
  o.head_dim = 64;
  o.vocab = 64;
  fs::create_directories(directory);
  Json header = Json::object();
  uint64_t offset = 0;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    uint64_t bytes = 4;
    for (const int64_t n : shape) bytes *= static_cast<uint64_t>(n);
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  };
  add("model.embed_tokens.weight", {o.vocab, o.hidden});
  add("lm_head.weight", {o.vocab, o.hidden});
  add("model.norm.weight", {o.hidden});
  for (int64_t i = 0; i < o.layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) add(at + norm, {o.hidden});
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      add(at + "self_attn." + name + ".weight", {o.hidden, o.hidden});
    for (const char* name : {"gate_proj", "up_proj"}) add(at + "mlp." + name + ".weight", {o.ffn, o.hidden});
    add(at + "mlp.down_proj.weight", {o.hidden, o.ffn});
  }
  LlamaOptions small = o;
  small.layers = 0;
  small.vocab = 1;
  Json config = llama_like(small).config;
  config["num_hidden_layers"] = o.layers;
  config["vocab_size"] = o.vocab;
  std::ofstream(directory / "config.json") << config.dump();
  const std::string text = header.dump();
  const uint64_t size = text.size();
  {
    std::ofstream out(directory / "model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << text;
  }
  fs::resize_file(directory / "model.safetensors", 8 + size + offset);
}

TEST(Memory, FloatsAreReadWhenUsedAndGivenBack) {
  if (!kCountsMemory) GTEST_SKIP() << "the sanitizer's own memory would be counted";
  TemporaryDirectory dir;
  write_hollow_model(dir.path());
  const auto tokens = some_tokens(4, 64);
  {
    Decoder warm_up(Checkpoint::open(dir.path()));  // buffers of threads and BLAS
    Matrix hidden = warm_up.embed(tokens);
    warm_up.attention(0, hidden);
    warm_up.feed_forward(0, hidden);
    warm_up.forget_layer(0);
  }
  const int64_t before = current_memory_bytes();
  Decoder model(Checkpoint::open(dir.path()));
  EXPECT_GT(model.weight_bytes(), 128 * kMiB);
  EXPECT_LT(current_memory_bytes() - before, 4 * kMiB);

  Matrix hidden = model.embed(tokens);
  for (int layer = 0; layer < 4; ++layer) {
    model.attention(layer, hidden);
    model.feed_forward(layer, hidden);
    EXPECT_GT(current_memory_bytes() - before, 24 * kMiB) << "a layer was used";
    model.forget_layer(layer);
    EXPECT_LT(current_memory_bytes() - before, 8 * kMiB) << "after layer " << layer;
  }
}

// 68 MiB of Q8_0 blocks.
TEST(Memory, PackedWeightsTakeTheFileAndOneTensor) {
  if (!kCountsMemory) GTEST_SKIP() << "the sanitizer's own memory would be counted";
  TemporaryDirectory dir;
  constexpr int64_t kHidden = 512, kFfn = 4096, kLayers = 9, kVocab = 64;
  Metadata metadata;
  metadata.set("general.architecture", std::string("llama"));
  for (const auto& [key, value] : std::vector<std::pair<std::string, int64_t>>{{"block_count", kLayers},
                                                                               {"embedding_length", kHidden},
                                                                               {"feed_forward_length", kFfn},
                                                                               {"attention.head_count", 8},
                                                                               {"context_length", 64}})
    metadata.set("llama." + key, static_cast<uint32_t>(value));
  const GgmlTypeInfo *f32 = find_ggml_type("f32"), *q8_0 = find_ggml_type("q8_0");
  std::vector<GgufSlot> slots = {{"token_embd.weight", q8_0, {kVocab, kHidden}},
                                 {"output_norm.weight", f32, {kHidden}}};
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string at = "blk." + std::to_string(i) + ".";
    for (const char* name : {"attn_norm", "ffn_norm"}) slots.push_back({at + name + ".weight", f32, {kHidden}});
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"})
      slots.push_back({at + name + ".weight", q8_0, {kHidden, kHidden}});
    for (const char* name : {"ffn_gate", "ffn_up"}) slots.push_back({at + name + ".weight", q8_0, {kFfn, kHidden}});
    slots.push_back({at + "ffn_down.weight", q8_0, {kHidden, kFfn}});
  }
  {
    GgufWriter writer(dir / "model.gguf", metadata, slots);
    const std::vector<std::byte> zeros(ggml_bytes(*q8_0, {kFfn, kHidden}));
    for (const GgufSlot& slot : slots)
      writer.add(slot.name, std::span(zeros).first(ggml_bytes(*slot.type, slot.shape)));
    writer.commit();
  }
  const auto file = static_cast<int64_t>(fs::file_size(dir / "model.gguf"));
  ASSERT_GT(file, 60 * kMiB);
  const int64_t before = current_memory_bytes();
  reset_peak_memory();
  const Decoder model(Checkpoint::open(dir / "model.gguf"));
  EXPECT_EQ(model.logits(some_tokens(3, kVocab)).rows(), 3);
  EXPECT_LT(peak_memory_bytes() - before, file + 24 * kMiB);  // of which one tensor: codes, blocks and tiles
  EXPECT_LT(model.weight_bytes(), file + kMiB);
}

}  // namespace
}  // namespace pare::test
