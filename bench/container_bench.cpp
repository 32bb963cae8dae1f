// Packing and unpacking of GPTQ words, beside memcpy of the same codes in the same run.
//   build/bench/container_bench            items_per_second = weights per second, on all threads
#include <benchmark/benchmark.h>

#include <cstring>
#include <numeric>

#include "pare/base/threads.h"
#include "pare/container/bit_packing.h"
#include "pare/container/gptq_tensors.h"

namespace pare {
namespace {

constexpr int64_t kSide = 4096;

Plane<uint8_t> some_codes(int bits) {
  Plane<uint8_t> codes(kSide, kSide);
  uint32_t state = 1;
  for (uint8_t& c : codes.values()) c = static_cast<uint8_t>((state = state * 1664525u + 1013904223u) >> (32 - bits));
  return codes;
}

std::vector<int32_t> some_order() {
  std::vector<int32_t> order(kSide);
  for (int64_t c = 0; c < kSide; ++c) order[static_cast<size_t>(c)] = static_cast<int32_t>(c * 1031 % kSide);
  return order;
}

void count_weights(benchmark::State& state) { state.SetItemsProcessed(state.iterations() * kSide * kSide); }

void copy_codes(benchmark::State& state) {
  const Plane<uint8_t> codes = some_codes(4);
  Plane<uint8_t> copy(kSide, kSide);
  for (auto _ : state) {
    parallel_for(kSide / 16, [&](int64_t i) { std::memcpy(copy.row(16 * i), codes.row(16 * i), 16 * kSide); });
    benchmark::ClobberMemory();
  }
  count_weights(state);
}
BENCHMARK(copy_codes)->UseRealTime();

void pack(benchmark::State& state) {
  const auto bits = static_cast<int>(state.range(0));
  const Plane<uint8_t> codes = some_codes(bits);
  const std::vector<int32_t> order = state.range(1) ? some_order() : std::vector<int32_t>();
  std::vector<std::byte> words(static_cast<size_t>(codes.size() * bits / 8));
  for (auto _ : state) {
    pack_columns(bits, codes, order, words);
    benchmark::ClobberMemory();
  }
  count_weights(state);
}
BENCHMARK(pack)->ArgNames({"bits", "ordered"})->ArgsProduct({{2, 3, 4, 8}, {0}})->Args({4, 1})->UseRealTime();

void unpack(benchmark::State& state) {
  const auto bits = static_cast<int>(state.range(0));
  const Plane<uint8_t> codes = some_codes(bits);
  const std::vector<int32_t> order = state.range(1) ? some_order() : std::vector<int32_t>();
  std::vector<std::byte> words(static_cast<size_t>(codes.size() * bits / 8));
  pack_columns(bits, codes, order, words);
  Plane<uint8_t> back(kSide, kSide);
  for (auto _ : state) {
    unpack_columns(bits, words, order, back);
    benchmark::ClobberMemory();
  }
  count_weights(state);
}
BENCHMARK(unpack)->ArgNames({"bits", "ordered"})->ArgsProduct({{2, 3, 4, 8}, {0}})->Args({4, 1})->UseRealTime();

// A whole layer: codes, zero points, scales and groups, memory allocated each time.
void encode_layer(benchmark::State& state) {
  Quantized q(AffineSpec{.bits = 4, .group = 128}, {kSide, kSide});
  q.codes = some_codes(4);
  for (auto _ : state) benchmark::DoNotOptimize(encode_gptq(q, GptqZeros::minus_one));
  count_weights(state);
}
BENCHMARK(encode_layer)->UseRealTime();

}  // namespace
}  // namespace pare

BENCHMARK_MAIN();
