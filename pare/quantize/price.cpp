#include "pare/quantize/price.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "pare/base/threads.h"
#include "pare/tensor/linalg.h"

namespace pare {
namespace {

constexpr int64_t kProgram = int64_t{96} << 20;  // code, tables, vocabulary, thread stacks, BLAS buffers

int64_t window_count(const Plan& plan) { return static_cast<int64_t>(plan.calibration->cut.windows.size()); }

struct BlockShape {
  int64_t weights = 0, largest = 0, widest_input = 0, stored_bytes = 0;
};
// The decoder block with the most weights.
BlockShape largest_block(const Plan& plan) {
  std::map<int, BlockShape> blocks;
  for (const PlannedTensor& t : plan.tensors) {
    if (t.layer < 0 || !t.on_grid()) continue;
    BlockShape& b = blocks[t.layer];
    b.weights += t.size();
    b.largest = std::max(b.largest, t.size());
    b.widest_input = std::max(b.widest_input, t.matrix_shape().cols);
    b.stored_bytes += 4 * t.size();
  }
  BlockShape out;
  for (const auto& [layer, b] : blocks)
    if (b.weights > out.weights) out = b;
  return out;
}

// f32 operations per second of BLAS on all threads.
double probe_flops() {
  constexpr int64_t kSide = 512;
  const Matrix a(kSide, kSide, 0.5f), b(kSide, kSide, 0.25f);
  Matrix y(kSide, kSide);
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const auto start = std::chrono::steady_clock::now();
    multiply_transposed(a, b, y.data(), kSide);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * kSide * kSide * kSide / seconds);
  }
  return best;
}

}  // namespace

int64_t estimate_memory(const Plan& plan) {
  int64_t tensor_at_a_time = 0;
  for (const PlannedTensor& t : plan.tensors) {
    const bool as_stored = name_of(t.target) == t.from && !t.transposed && t.row_order.empty();
    const int64_t floats = as_stored ? 0 : 4 * t.size(), codes = t.on_grid() ? t.size() : 0;
    tensor_at_a_time = std::max(tensor_at_a_time, floats + codes + t.bytes);
  }
  if (!plan.calibrates()) return kProgram + tensor_at_a_time;

  const Config& c = plan.config;
  const int64_t length = plan.calibration->cut.length, parallel = std::min<int64_t>(threads(), window_count(plan));
  const BlockShape block = largest_block(plan);
  const int64_t hidden_states = window_count(plan) * length * c.hidden * 4;
  const int64_t activations = parallel * length * (3 * c.hidden + 3 * c.ffn) * 4;
  const int64_t hessians = 3 * block.widest_input * block.widest_input * 4;
  const int64_t solving = 14 * block.largest;  // weights and error (f32), values, codes
  return kProgram + std::max(tensor_at_a_time, 4 * block.weights + hessians + solving) + hidden_states + activations +
         block.stored_bytes / 2;
}

double estimate_seconds(const Plan& plan) {
  constexpr double kNearestPerSecond = 40e6;  // weights per core and second, searched fits included
  const double flops = probe_flops();
  const auto tokens = static_cast<double>(plan.calibrates() ? plan.calibration->cut.tokens() : 0);
  double seconds = 0.1;
  for (const PlannedTensor& t : plan.tensors) {
    if (!t.on_grid()) continue;
    const Shape s = t.matrix_shape();
    const auto weights = static_cast<double>(t.size()), k = static_cast<double>(s.cols);
    seconds += weights / (kNearestPerSecond * threads());
    if (t.layer < 0 || tokens == 0) continue;
    seconds += 2 * 2 * weights * tokens / flops;  // each half of a block runs twice
    if (t.method == Method::gptq) seconds += (2 * weights * k + k * k * k + k * k * tokens) / flops;
  }
  return seconds;
}

std::vector<RuntimeVerdict> judge_runtimes(const Plan& plan) {
  if (!plan.container->runtimes) return {};
  return plan.container->runtimes(plan.output);
}

}  // namespace pare
