// Products of packed weights against what the machine can do, measured in the same process: memory read for one
// token, sgemm for many. Counters: `of_memory` and `of_sgemm` are fractions of those, the only figures worth quoting.
//
// Weights are 300 MB per type, in shapes of a 1.1 B llama, one after another, so that none is in cache. Every time is
// the best of several, matrix by matrix.
#include <benchmark/benchmark.h>
#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "pare/base/threads.h"
#include "pare/kernels/packed.h"
#include "pare/kernels/tiles.h"

namespace pare {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// ---- limits

void read(const std::byte* memory, int64_t bytes) {
  const auto* from = reinterpret_cast<const uint64_t*>(memory);
  uint64_t sum[8] = {};
  for (int64_t k = 0; k < bytes / 64; ++k) {
    __builtin_prefetch(from + k * 8 + 896);
    for (int64_t j = 0; j < 8; ++j) sum[j] ^= from[k * 8 + j];
  }
  benchmark::DoNotOptimize(sum);
}

// 512 MB on huge pages in pieces of 8 MB, all threads reading each piece: the sum of every piece's best time, so that
// a busy machine disturbs little. Products are timed the same way.
double memory_read_rate() {
  constexpr int64_t kPiece = int64_t{8} << 20, kPieces = 64, kPart = 256 << 10;
  Lines memory(kPiece * kPieces);
  std::memset(memory.data(), 1, kPiece * kPieces);
  std::vector<double> best(kPieces, 1e9);
  for (int pass = 0; pass < 8; ++pass)
    for (int64_t piece = 0; piece < kPieces; ++piece) {
      const auto start = Clock::now();
      parallel_for(kPiece / kPart, [&](int64_t part) { read(memory.data() + piece * kPiece + part * kPart, kPart); });
      best[static_cast<size_t>(piece)] = std::min(best[static_cast<size_t>(piece)], seconds_since(start));
    }
  return static_cast<double>(kPiece * kPieces) / std::accumulate(best.begin(), best.end(), 0.0);
}
double memory_limit() {
  static const double rate = memory_read_rate();
  return rate;
}

// One sgemm of the whole product, as BLAS cuts it among the threads.
double sgemm_seconds(Shape w, int64_t tokens) {
  const Matrix x(tokens, w.cols, 1.0f), m(w.rows, w.cols, 1.0f);
  Matrix y(tokens, w.rows);
  double best = 1e9;
  for (int pass = 0; pass < 4; ++pass) {
    const auto start = Clock::now();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(tokens), static_cast<int>(w.rows),
                static_cast<int>(w.cols), 1.0f, x.data(), static_cast<int>(w.cols), m.data(), static_cast<int>(w.cols),
                0.0f, y.data(), static_cast<int>(w.rows));
    best = std::min(best, seconds_since(start));
  }
  return best;
}

// ---- weights

struct Type {
  const char* name;
  bool floats;
  DType dtype;
  Grid grid;
};
const Type kTypes[] = {
    {"f32", true, DType::f32, {}},
    {"bf16", true, DType::bf16, {}},
    {"f16", true, DType::f16, {}},
    {"q8_0", false, {}, BlockSpec{BlockSpec::Type::q8_0}},
    {"q4_0", false, {}, BlockSpec{BlockSpec::Type::q4_0}},
    {"q4_k", false, {}, SuperBlockSpec{SuperBlockSpec::Type::q4_k}},
    {"q6_k", false, {}, SuperBlockSpec{SuperBlockSpec::Type::q6_k}},
    {"int4-g128", false, {}, AffineSpec{4, 128, true, 0}},
    {"int3-g128", false, {}, AffineSpec{3, 128, false, 0}},
};

// Codes cost the same whatever they are; scales of 0.01 keep sums finite.
Quantized quantized(const Grid& grid, Shape shape) {
  Quantized q(grid, shape);
  std::minstd_rand random(1);
  const int top = tile_layout(grid, shape).bits == 8 ? 255 : (1 << tile_layout(grid, shape).bits) - 1;
  for (uint8_t& c : q.codes.values()) c = static_cast<uint8_t>(random() & static_cast<unsigned>(top));
  if (auto* a = std::get_if<Affine>(&q.params)) a->scale = {a->scale.rows(), a->scale.cols(), 0x1p-7f};
  if (auto* b = std::get_if<Block>(&q.params)) b->scale = {b->scale.rows(), b->scale.cols(), 0x1p-7f};
  if (auto* s = std::get_if<SuperBlock>(&q.params)) {
    s->d = {s->d.rows(), s->d.cols(), 0x1p-12f};
    s->dmin = {s->dmin.rows(), s->dmin.cols(), 0x1p-12f};
    s->scale = {s->scale.rows(), s->scale.cols(), 33};
  }
  return q;
}

PackedMatrix weights(const Type& type, Shape shape) {
  if (!type.floats) return PackedMatrix::of_quantized(quantized(type.grid, shape));
  const auto bytes = static_cast<size_t>(shape.size() * info(type.dtype).bits / 8);
  auto memory = std::make_shared<Lines>(static_cast<int64_t>(bytes));
  std::memset(memory->data(), 0x11, bytes);
  return PackedMatrix::of_floats(type.dtype, {memory->data(), bytes}, shape, memory);
}

// ---- benchmarks

void decode(benchmark::State& state, const Type& type, int64_t tokens) {
  const Shape shapes[] = {{2048, 2048}, {5632, 2048}, {2048, 5632}};
  std::vector<PackedMatrix> all;
  int64_t bytes = 0;
  while (bytes < int64_t{300} << 20) {
    all.push_back(weights(type, shapes[all.size() % 3]));
    bytes += all.back().bytes();
  }
  const Matrix x(tokens, 5632, 0.5f);
  Matrix y(tokens, 5632);
  std::vector<double> best(all.size(), 1e9);
  for (auto _ : state)
    for (size_t i = 0; i < all.size(); ++i) {
      const MatrixView view(x.data(), tokens, all[i].shape().cols, x.cols());
      const auto start = Clock::now();
      all[i].multiply(view, y.data(), y.cols());
      best[i] = std::min(best[i], seconds_since(start));
    }
  const double rate = static_cast<double>(bytes) / std::accumulate(best.begin(), best.end(), 0.0);
  state.counters["GB/s"] = rate / 1e9;
  state.counters["of_memory"] = rate / memory_limit();
}

void prefill(benchmark::State& state, const Type& type, Shape shape, int64_t tokens) {
  const PackedMatrix w = weights(type, shape);
  const Matrix x(tokens, shape.cols, 0.5f);
  Matrix y(tokens, shape.rows);
  const double before = sgemm_seconds(shape, tokens);
  double best = 1e9;
  for (auto _ : state) {
    const auto start = Clock::now();
    w.multiply(x, y.data(), y.cols());
    best = std::min(best, seconds_since(start));
  }
  const double sgemm = std::min(before, sgemm_seconds(shape, tokens));
  state.counters["GFLOP/s"] = 2e-9 * static_cast<double>(shape.size() * tokens) / best;
  state.counters["of_sgemm"] = sgemm / best;
}

void small(benchmark::State& state, const Type& type) {
  const PackedMatrix w = weights(type, {256, 256});
  const Matrix x(1, 256, 0.5f);
  Matrix y(1, 256);
  for (auto _ : state) w.multiply(x, y.data(), 256);
}

void pack(benchmark::State& state, const Type& type) {
  const Shape shape{4096, 4096};
  const Quantized q = quantized(type.grid, shape);
  for (auto _ : state) benchmark::DoNotOptimize(PackedMatrix::of_quantized(q).bytes());
  const auto count = static_cast<double>(shape.size()) * static_cast<double>(state.iterations());
  state.counters["Mweights/s"] = benchmark::Counter(count / 1e6, benchmark::Counter::kIsRate);
}

void register_all() {
  for (const Type& t : kTypes) {
    for (const int64_t tokens : {1, 2, 4})
      benchmark::RegisterBenchmark(fmt::format("decode/{}/tokens:{}", t.name, tokens).c_str(),
                                   [&t, tokens](benchmark::State& s) { decode(s, t, tokens); })
          ->UseRealTime()
          ->Iterations(8)
          ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(fmt::format("decode/{}/256x256", t.name).c_str(), [&t](benchmark::State& s) {
      small(s, t);
    })->UseRealTime();
    for (const Shape shape : {Shape{1024, 1024}, Shape{2048, 2048}, Shape{2048, 5632}})
      for (const int64_t tokens : {8, 16, 32, 128, 512, 2048})
        benchmark::RegisterBenchmark(
            fmt::format("prefill/{}/{}x{}/tokens:{}", t.name, shape.rows, shape.cols, tokens).c_str(),
            [&t, shape, tokens](benchmark::State& s) { prefill(s, t, shape, tokens); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
    if (!t.floats)
      benchmark::RegisterBenchmark(fmt::format("pack/{}", t.name).c_str(), [&t](benchmark::State& s) { pack(s, t); })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  pare::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("threads", std::to_string(pare::threads()));
  benchmark::AddCustomContext("memory read, GB/s", std::to_string(pare::memory_limit() / 1e9));
  benchmark::RunSpecifiedBenchmarks();
}
