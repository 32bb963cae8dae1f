// GPTQ and the sums behind it, next to what OpenBLAS needs for the same floating-point operations on the same threads.
// Both are measured in turn in one run, and the least time of each counts, so that `ratio` survives a busy machine.
//
//   solver_bench [--benchmark_filter=…]      2 threads; PARE_BENCH_THREADS sets others
#include <benchmark/benchmark.h>
#include <cblas.h>

#include <chrono>
#include <cstdlib>
#include <limits>
#include <random>

#include "pare/base/threads.h"
#include "pare/solver/solver.h"
#include "pare/tensor/linalg.h"

namespace pare {
namespace {

Matrix random_matrix(int64_t rows, int64_t cols) {
  std::minstd_rand generator(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Matrix m(rows, cols);
  for (float& x : m.values()) x = uniform(generator);
  return m;
}

template <class Body>
double seconds(Body&& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs both in turn; `share` is how much of BLAS' call is the work of ours.
template <class Ours, class Blas>
void compare(benchmark::State& state, double share, Ours&& ours, Blas&& blas) {
  double our_time = std::numeric_limits<double>::infinity(), blas_time = our_time;
  for (auto _ : state) {
    blas_time = std::min(blas_time, share * seconds(blas));
    const double time = seconds(ours);
    our_time = std::min(our_time, time);
    state.SetIterationTime(time);
  }
  state.counters["ours_s"] = our_time;
  state.counters["blas_s"] = blas_time;
  state.counters["ratio"] = our_time / blas_time;
}

struct Layer {
  Matrix w, h, product;
  explicit Layer(int64_t n) : w(random_matrix(n, n)), h(n, n), product(n, n) {
    add_gram(random_matrix(n + n / 4, n), h);
    mirror_lower(h);
  }
  void sgemm() {
    const int n = static_cast<int>(w.rows());
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0f, w.data(), n, h.data(), n, 0.0f,
                product.data(), n);
  }
};

const Grid kGrid = AffineSpec{.bits = 4, .group = 128, .symmetric = false};
GptqOptions options(ColumnOrder order) { return {.order = order, .fit = {.search = Search::range}}; }

// Multiply-adds of GPTQ as published and as the peers compute it: N·K²/2 of error feedback, K³/6 for the Cholesky
// factor, K³/3 for the inverse, K³/6 for the inverse's factor; sgemm has N·K². (We need N·K²/2 + K³/6.)
constexpr double kFactorShare = 1.0 / 6 + 1.0 / 3 + 1.0 / 6;
void gptq_solve(benchmark::State& state, ColumnOrder order) {
  Layer layer(state.range(0));
  const GptqOptions o = options(order);
  compare(
      state, 1.0 / 2 + kFactorShare,
      [&] { benchmark::DoNotOptimize(gptq(layer.w, factor_hessian(layer.h, 128, o), kGrid, o)); },
      [&] { layer.sgemm(); });
}
void gptq_natural(benchmark::State& state) { gptq_solve(state, ColumnOrder::natural); }
void gptq_windows(benchmark::State& state) { gptq_solve(state, ColumnOrder::windows); }

void factor(benchmark::State& state) {
  Layer layer(state.range(0));
  const GptqOptions o = options(ColumnOrder::natural);
  compare(
      state, kFactorShare, [&] { benchmark::DoNotOptimize(factor_hessian(layer.h, 128, o)); }, [&] { layer.sgemm(); });
}

void gram(benchmark::State& state) {
  const int n = static_cast<int>(state.range(0)), tokens = 2048;
  const Matrix x = random_matrix(tokens, n);
  Matrix h(n, n), g(n, n);
  compare(
      state, 1, [&] { add_gram(x, h); },
      [&] { cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, n, tokens, 1.0f, x.data(), n, 1.0f, g.data(), n); });
}

void forward_product(benchmark::State& state) {
  const int n = static_cast<int>(state.range(0)), tokens = 2048;
  const Matrix x = random_matrix(tokens, n), w = random_matrix(n, n);
  Matrix y(tokens, n), z(tokens, n);
  compare(
      state, 1, [&] { multiply_transposed(x, w, y.data(), n); },
      [&] {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tokens, n, n, 1.0f, x.data(), n, w.data(), n, 0.0f,
                    z.data(), n);
      });
}

#define PARE_BENCHMARK(name) \
  BENCHMARK(name)->Arg(2048)->Arg(4096)->UseManualTime()->MinTime(2)->Unit(benchmark::kMillisecond)
PARE_BENCHMARK(gptq_natural);
PARE_BENCHMARK(gptq_windows);
PARE_BENCHMARK(factor);
PARE_BENCHMARK(gram);
PARE_BENCHMARK(forward_product);

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  const char* count = std::getenv("PARE_BENCH_THREADS");
  pare::set_threads(count ? std::atoi(count) : 2);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
