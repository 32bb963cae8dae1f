// How fast matrices get onto grids: one thread, rates per second of CPU time. "of memcpy" is the rate of source bytes
// relative to copying them with memcpy in the same process, which is what another machine can be compared by.
//   grid_bench --benchmark_filter=rtn
#include <benchmark/benchmark.h>
#include <hwy/highway.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "pare/base/threads.h"
#include "pare/container/gguf_blocks.h"
#include "pare/grid/quantized.h"
#include "pare/tensor/dtype.h"

namespace pare {
namespace {

constexpr Shape kShape{1024, 4096};
const Grid kInt4 = AffineSpec{4, 128, true, 0}, kInt4Zero = AffineSpec{4, 128, false, 0},
           kInt8 = AffineSpec{8, 0, true, 0}, kQ4_0 = BlockSpec{BlockSpec::Type::q4_0},
           kQ8_0 = BlockSpec{BlockSpec::Type::q8_0}, kQ4_K = SuperBlockSpec{SuperBlockSpec::Type::q4_k},
           kQ6_K = SuperBlockSpec{SuperBlockSpec::Type::q6_k};

const Matrix& weights() {
  static const Matrix w = [] {
    Matrix m(kShape.rows, kShape.cols);
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    for (float& x : m.values()) x = normal(random);
    return m;
  }();
  return w;
}

const std::vector<std::byte>& bf16_weights() {
  static const std::vector<std::byte> bytes = [] {
    std::vector<std::byte> out(static_cast<size_t>(kShape.size() * 2));
    from_f32(DType::bf16, weights().values(), out);
    return out;
  }();
  return bytes;
}

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Bytes of source per second of memcpy of a matrix of f32, larger than the caches. CPU time, as the rates it is
// compared with: on a busy machine wall time would measure the other programs. The median of several copies into pages
// that were touched before.
double copy_speed() {
  static const double speed = [] {
    std::vector<float> to(static_cast<size_t>(kShape.size()), 1.0f);
    const size_t bytes = to.size() * sizeof(float);
    std::vector<double> speeds;
    for (int i = 0; i < 15; ++i) {
      const double start = cpu_seconds();
      std::memcpy(to.data(), weights().data(), bytes);
      benchmark::DoNotOptimize(to.data());
      speeds.push_back(static_cast<double>(bytes) / (cpu_seconds() - start));
    }
    std::nth_element(speeds.begin(), speeds.begin() + 7, speeds.end());
    return speeds[7];
  }();
  return speed;
}

void report(benchmark::State& state, int64_t weights_per_pass, double source_bytes_per_weight) {
  const auto passes = static_cast<double>(state.iterations());
  const auto all = static_cast<double>(weights_per_pass) * passes;
  state.counters["weights/s"] = benchmark::Counter(all, benchmark::Counter::kIsRate);
  state.counters["source B/s"] = benchmark::Counter(all * source_bytes_per_weight, benchmark::Counter::kIsRate);
  state.counters["of memcpy"] =
      benchmark::Counter(all * source_bytes_per_weight / copy_speed(), benchmark::Counter::kIsRate);
}

template <class Body>
void for_each_strip(Quantized& q, MatrixView w, std::vector<float>& lanes, Body&& body) {
  lanes.resize(static_cast<size_t>(q.window() * kLanes));
  for (int64_t row = 0; row < w.rows; row += kLanes)
    for (int64_t window = 0; window < q.windows(); ++window) {
      Strip strip{lanes.data(), row, kLanes, window * q.window(), (window + 1) * q.window()};
      load_strip(w, strip);
      body(strip);
    }
}

// Round to nearest in one pass over the source: load, fit, round.
void rtn(benchmark::State& state, const Grid& grid, FitHow how) {
  Quantized q(grid, kShape);
  std::vector<float> lanes;
  for (auto _ : state)
    for_each_strip(q, weights(), lanes, [&](const Strip& strip) {
      q.fit(strip, how);
      q.round(strip);
    });
  report(state, kShape.size(), 4);
}

// The same from bf16, sixteen rows converted at a time.
void rtn_bf16(benchmark::State& state, const Grid& grid) {
  Quantized q(grid, kShape);
  std::vector<float> lanes(static_cast<size_t>(q.window() * kLanes));
  Matrix rows(kLanes, kShape.cols);
  const size_t bytes = rows.values().size() * 2;
  for (auto _ : state)
    for (int64_t row = 0; row < kShape.rows; row += kLanes) {
      to_f32(DType::bf16, std::span(bf16_weights()).subspan(static_cast<size_t>(row * kShape.cols * 2), bytes),
             rows.values());
      for (int64_t window = 0; window < q.windows(); ++window) {
        Strip strip{lanes.data(), 0, kLanes, window * q.window(), (window + 1) * q.window()};
        load_strip(rows, strip);
        strip.first_row = row;
        q.fit(strip, {Search::range, {}, false});
        q.round(strip);
      }
    }
  report(state, kShape.size(), 2);
}

void fit_windows(benchmark::State& state, const Grid& grid, FitHow how) {
  const MatrixView some = MatrixView(weights()).rows_between(0, 64);
  Quantized q(grid, some.shape());
  for (auto _ : state)
    for (int64_t window = 0; window < q.windows(); ++window) q.fit(window, some, how);
  report(state, some.shape().size(), 4);
}

// As GPTQ asks: one column of one strip per call.
void round_by_column(benchmark::State& state, const Grid& grid) {
  const MatrixView some = MatrixView(weights()).rows_between(0, 64);
  Quantized q(grid, some.shape());
  for (int64_t window = 0; window < q.windows(); ++window) q.fit(window, some, {Search::range, {}, false});
  std::vector<float> lanes;
  for (auto _ : state)
    for_each_strip(q, some, lanes, [&](const Strip& strip) {
      for (int64_t c = strip.first; c < strip.last; ++c)
        q.round({strip.values + (c - strip.first) * kLanes, strip.first_row, strip.rows, c, c + 1});
    });
  report(state, some.shape().size(), 4);
  state.counters["per call"] =
      benchmark::Counter(static_cast<double>(some.shape().size() / kLanes) * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void transpose(benchmark::State& state) {
  Quantized q(kQ4_K, kShape);
  std::vector<float> lanes;
  Matrix out(kShape.rows, kShape.cols);
  for (auto _ : state)
    for_each_strip(q, weights(), lanes, [&](const Strip& strip) { store_strip(strip, out.data(), out.cols()); });
  report(state, kShape.size(), 4);
}

void copy(benchmark::State& state) {
  Matrix out(kShape.rows, kShape.cols, 1.0f);
  for (auto _ : state) std::memcpy(out.data(), weights().data(), static_cast<size_t>(kShape.size()) * sizeof(float));
  report(state, kShape.size(), 4);
}

void blocks(benchmark::State& state, const Grid& grid, bool write) {
  Quantized q(grid, kShape);
  std::vector<float> lanes;
  for_each_strip(q, weights(), lanes, [&](const Strip& strip) {
    q.fit(strip, {Search::range, {}, false});
    q.round(strip);
  });
  const GgmlTypeInfo& type = *ggml_type_of(grid);
  std::vector<std::byte> bytes(ggml_bytes(type, {kShape.rows, kShape.cols}));
  encode_blocks(q, bytes);
  for (auto _ : state) {
    if (write)
      encode_blocks(q, bytes);
    else
      benchmark::DoNotOptimize(decode_blocks(type, kShape, bytes, "bench"));
  }
  report(state, kShape.size(), 4);
}

void add_benchmarks() {
  const FitHow range{Search::range, {}, false}, error{Search::error, {}, false};
  benchmark::RegisterBenchmark("memcpy", copy);
  benchmark::RegisterBenchmark("transpose there and back", transpose);
  for (const Grid& grid : {kInt4, kInt4Zero, kQ4_0, kQ8_0, kQ4_K, kQ6_K}) {
    benchmark::RegisterBenchmark(("rtn range f32 " + name_of(grid)).c_str(), rtn, grid, range);
    benchmark::RegisterBenchmark(("rtn range bf16 " + name_of(grid)).c_str(), rtn_bf16, grid);
  }
  for (const Grid& grid : {kInt4, kInt4Zero, kInt8, kQ4_0, kQ8_0, kQ4_K, kQ6_K}) {
    benchmark::RegisterBenchmark(("fit search " + name_of(grid)).c_str(), fit_windows, grid, error);
    benchmark::RegisterBenchmark(("fit range " + name_of(grid)).c_str(), fit_windows, grid, range);
    benchmark::RegisterBenchmark(("round by column " + name_of(grid)).c_str(), round_by_column, grid);
  }
  benchmark::RegisterBenchmark("rtn search q4_k", rtn, kQ4_K, FitHow{Search::error, {}, true});
  for (const Grid& grid : {kQ4_0, kQ8_0, kQ4_K, kQ6_K}) {
    benchmark::RegisterBenchmark(("encode " + name_of(grid)).c_str(), blocks, grid, true);
    benchmark::RegisterBenchmark(("decode " + name_of(grid)).c_str(), blocks, grid, false);
  }
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  pare::set_threads(1);
  pare::copy_speed();  // also makes the weights, before anything is timed
  pare::bf16_weights();
  pare::add_benchmarks();
  benchmark::AddCustomContext("instruction set", hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets()));
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
