// Speed of the calibration forward: one decoder block over a sequence of 2048 tokens, beside the time that sgemm needs
// for the same floating-point operations (the block's matrices, and the causal half of scores and mixing) on the same
// threads, measured in the same run. Counter of_sgemm = sgemm's time / ours; issue 3 wants at least 0.7.
//
//   OMP_NUM_THREADS=1 forward_bench [--benchmark_filter=…]
#include <benchmark/benchmark.h>
#include <cblas.h>
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "pare/base/threads.h"
#include "pare/container/safetensors.h"
#include "pare/model/decoder.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

struct BlockShape {
  const char* name;
  int64_t hidden, ffn, heads, kv_heads;
  DType type;
};
constexpr int64_t kTokens = 2048;
constexpr BlockShape kShapes[] = {
    {"1024x2816/f32", 1024, 2816, 16, 16, DType::f32},
    {"1024x2816/bf16", 1024, 2816, 16, 4, DType::bf16},
    {"2048x5632/bf16", 2048, 5632, 32, 4, DType::bf16},
    {"2048x5632/f32", 2048, 5632, 32, 32, DType::f32},
};

float noise(uint64_t i) {
  i = (i ^ (i >> 31)) * 0x9E3779B97F4A7C15u;
  return (static_cast<float>((i ^ (i >> 29)) >> 40) / static_cast<float>(1 << 24) - 0.5f) * 0.1f;
}

// A Llama of one block with random weights.
std::shared_ptr<const Checkpoint> write_block(const BlockShape& s, const fs::path& to) {
  constexpr int64_t kVocab = 64;
  fs::create_directories(to);
  const int64_t kv = s.hidden / s.heads * s.kv_heads;
  std::ofstream(to / "config.json") << Json{{"architectures", {"LlamaForCausalLM"}},
                                            {"hidden_size", s.hidden},
                                            {"intermediate_size", s.ffn},
                                            {"num_hidden_layers", 1},
                                            {"num_attention_heads", s.heads},
                                            {"num_key_value_heads", s.kv_heads},
                                            {"vocab_size", kVocab},
                                            {"tie_word_embeddings", true},
                                            {"max_position_embeddings", kTokens}};
  const std::string at = "model.layers.0.";
  const std::vector<SafetensorsSlot> slots = {{"model.embed_tokens.weight", s.type, {kVocab, s.hidden}},
                                              {"model.norm.weight", s.type, {s.hidden}},
                                              {at + "input_layernorm.weight", s.type, {s.hidden}},
                                              {at + "post_attention_layernorm.weight", s.type, {s.hidden}},
                                              {at + "self_attn.q_proj.weight", s.type, {s.hidden, s.hidden}},
                                              {at + "self_attn.k_proj.weight", s.type, {kv, s.hidden}},
                                              {at + "self_attn.v_proj.weight", s.type, {kv, s.hidden}},
                                              {at + "self_attn.o_proj.weight", s.type, {s.hidden, s.hidden}},
                                              {at + "mlp.gate_proj.weight", s.type, {s.ffn, s.hidden}},
                                              {at + "mlp.up_proj.weight", s.type, {s.ffn, s.hidden}},
                                              {at + "mlp.down_proj.weight", s.type, {s.hidden, s.ffn}}};
  SafetensorsWriter writer(to / "model.safetensors", slots);
  for (const SafetensorsSlot& slot : slots) {
    std::vector<float> values(static_cast<size_t>(slot.shape[0] * (slot.shape.size() > 1 ? slot.shape[1] : 1)));
    for (size_t i = 0; i < values.size(); ++i) values[i] = noise(i + 1);
    std::vector<std::byte> bytes(values.size() * static_cast<size_t>(info(slot.dtype).bits / 8));
    from_f32(slot.dtype, values, bytes);
    writer.add(slot.name, bytes);
  }
  writer.commit();
  return Checkpoint::open(to);
}

Matrix random_matrix(int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  for (int64_t i = 0; i < m.size(); ++i) m.data()[i] = noise(static_cast<uint64_t>(i) + 99);
  return m;
}

// With one thread the time that the processor gave us, which a busy machine disturbs less.
double now() {
  timespec t;
  clock_gettime(threads() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class Action>
double seconds(const Action& action) {
  const double start = now();
  action();
  return now() - start;
}

// sgemm over the whole product, on BLAS's own threads.
double sgemm_seconds(int64_t m, int64_t n, int64_t k) {
  const Matrix a = random_matrix(m, k), b = random_matrix(n, k);
  Matrix c(m, n);
  return seconds([&] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k),
                1, a.data(), static_cast<int>(k), b.data(), static_cast<int>(k), 0, c.data(), static_cast<int>(n));
  });
}

double sgemm_seconds_of(const std::vector<Linear>& linears, const BlockShape& s) {
  double total = 0;
  for (const Linear& l : linears) total += sgemm_seconds(kTokens, l.shape.rows, l.shape.cols);
  // Scores and mixing: 2 x 2 x hidden x tokens²/2 operations, at the rate of a product with tokens x hidden x hidden.
  const double square = sgemm_seconds(kTokens, s.hidden, s.hidden);
  return total + square * static_cast<double>(kTokens) / static_cast<double>(s.hidden);
}

// Ours and sgemm's times are taken in turns, so that whatever else the machine does falls on both; the fastest of each
// counts.
void forward(benchmark::State& state, const BlockShape& shape) {
  const fs::path directory = fs::temp_directory_path() / fmt::format("pare-forward-bench-{}", ::getpid());
  {
    const Decoder model(write_block(shape, directory));
    const std::vector<Linear> linears = model.linears(0);
    const Matrix start = random_matrix(kTokens, shape.hidden);
    double attention = 1e9, feed_forward = 1e9, sgemm = 1e9;
    for ([[maybe_unused]] auto _ : state) {
      Matrix hidden = start;
      const double first = seconds([&] { model.attention(0, hidden); });
      const double second = seconds([&] { model.feed_forward(0, hidden); });
      state.SetIterationTime(first + second);
      attention = std::min(attention, first);
      feed_forward = std::min(feed_forward, second);
      sgemm = std::min(sgemm, sgemm_seconds_of(linears, shape));
    }
    double weights = 0;
    for (const Linear& l : linears) weights += static_cast<double>(l.shape.size());
    const double operations =
        static_cast<double>(kTokens) * (2 * weights + 2.0 * static_cast<double>(kTokens * shape.hidden));
    state.counters["of_sgemm"] = sgemm / (attention + feed_forward);
    state.counters["attention_share"] = attention / (attention + feed_forward);
    state.counters["sgemm_GFLOPS"] = operations / sgemm / 1e9;
    state.counters["threads"] = threads();
  }
  fs::remove_all(directory);
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  for (const pare::BlockShape& shape : pare::kShapes)
    benchmark::RegisterBenchmark(fmt::format("forward/{}", shape.name).c_str(),
                                 [&](benchmark::State& state) { pare::forward(state, shape); })
        ->UseManualTime()
        ->Iterations(5)
        ->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
