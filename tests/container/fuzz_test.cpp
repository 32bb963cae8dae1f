// Small valid files, damaged at every byte: the reader may accept or throw Error, nothing else.
#include "pare/base/threads.h"
#include "pare/container/checkpoint.h"
#include "pare/container/container.h"
#include "tests/container/files.h"
#include "tests/container/gguf_image.h"

namespace pare::test {
namespace {

struct Tally {
  int accepted = 0, refused = 0;
};

void open_and_load(const std::filesystem::path& path, Tally& tally) {
  try {
    const auto checkpoint = Checkpoint::open(path);
    for (const StoredTensor& t : checkpoint->tensors()) {
      const size_t dot = t.name.rfind('.');
      const std::string weight = t.name.substr(0, dot) + ".weight";
      if (!checkpoint->has(weight)) continue;
      const auto shape = checkpoint->shape_of(weight);
      const Weight loaded = checkpoint->load(weight);
      if (const auto* q = std::get_if<Quantized>(&loaded)) {
        EXPECT_EQ(dequantize(*q).shape(), *shape);
        EXPECT_TRUE(checkpoint->grid_of_weight(weight) == q->grid());
      } else if (std::get<FloatTensor>(loaded).shape.size() <= 2) {
        std::get<FloatTensor>(loaded).to_matrix();
      }
    }
    static_cast<void>(checkpoint->quantization());
    ++tally.accepted;
  } catch (const Error&) {
    ++tally.refused;
  }
}

// Every byte of [0, positions), changed in several ways, and the file cut there.
Tally damage(const std::filesystem::path& file, const std::filesystem::path& open, size_t positions) {
  const std::string good = read_bytes(file);
  Tally tally;
  std::mt19937 random(7);
  for (size_t i = 0; i < std::min(positions, good.size()); ++i) {
    for (const int change : {0x01, 0x80, 0xFF, static_cast<int>(1 + random() % 255)}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ change);
      write_bytes(file, bad);
      open_and_load(open, tally);
    }
    write_bytes(file, good.substr(0, i));
    open_and_load(open, tally);
  }
  // Eight bytes at once: lengths and offsets that are absurd.
  for (size_t i = 0; i + 8 <= std::min(positions, good.size()); ++i) {
    const uint64_t values[] = {UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 32, 0, random()};
    std::string bad = good;
    std::memcpy(bad.data() + i, &values[i % 5], 8);
    write_bytes(file, bad);
    open_and_load(open, tally);
  }
  write_bytes(file, good);
  open_and_load(open, tally);
  return tally;
}

class Damage : public ::testing::Test {
 protected:
  Damage() { set_threads(1); }  // thousands of tiny matrices: starting threads would take all the time
  ~Damage() override { set_threads(0); }
};

TEST_F(Damage, Gguf) {
  const TemporaryDirectory directory;
  write_bytes(directory / "t.gguf", gguf_example());
  const Tally tally = damage(directory / "t.gguf", directory / "t.gguf", SIZE_MAX);
  EXPECT_GT(tally.refused, 500);
  EXPECT_GT(tally.accepted, 100);
}

TEST_F(Damage, GptqDirectory) {
  const TemporaryDirectory directory;
  OutputPlan plan;
  const Grid grid = AffineSpec{.bits = 4, .group = 32, .symmetric = false, .lowest_zero = 1};
  plan.tensors = {{"model.layers.0.w.weight", {32, 32}, grid, DType::f16, false},
                  {"model.layers.0.n.weight", {4}, {}, DType::f16, false}};
  auto writer = find_container("gptq").create(directory / "m", plan, false);
  writer->add("model.layers.0.w.weight", random_quantized(grid, {32, 32}, 3));
  writer->add("model.layers.0.n.weight", bytes_of(std::string(8, '\1')));
  writer->commit();
  const Tally weights = damage(directory / "m" / "model.safetensors", directory / "m", 900);
  EXPECT_GT(weights.refused, 1000);
  EXPECT_GT(weights.accepted, 50);
  const Tally config = damage(directory / "m" / "config.json", directory / "m", SIZE_MAX);
  EXPECT_GT(config.refused, 100);
  EXPECT_GT(config.accepted, 100);
}

TEST_F(Damage, ShardIndex) {
  const TemporaryDirectory directory;
  OutputPlan plan;
  plan.max_shard_bytes = 8;
  plan.tensors = {{"a.weight", {4}, {}, DType::f16, false}, {"b.weight", {4}, {}, DType::f16, false}};
  auto writer = find_container("safetensors").create(directory / "m", plan, false);
  for (const char* name : {"a.weight", "b.weight"}) writer->add(name, bytes_of(std::string(8, '\1')));
  writer->commit();
  const Tally tally = damage(directory / "m" / "model.safetensors.index.json", directory / "m", SIZE_MAX);
  EXPECT_GT(tally.refused, 500);
  EXPECT_GT(tally.accepted, 10);
}

}  // namespace
}  // namespace pare::test
