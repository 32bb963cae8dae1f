#include "pare/calibrate/statistics.h"

#include <algorithm>

#include "pare/base/interrupt.h"
#include "pare/base/threads.h"
#include "pare/tensor/linalg.h"

namespace pare {

std::vector<float> InputStatistics::mean_square() const {
  std::vector<float> out(static_cast<size_t>(hessian.rows()));
  for (int64_t i = 0; i < hessian.rows(); ++i) out[static_cast<size_t>(i)] = hessian(i, i);
  return out;
}

namespace {

InputStatistics sum_inputs(const Decoder& model, int layer, Tap tap, std::span<const Matrix> hidden, bool all_tokens) {
  InputStatistics out;
  const auto count = static_cast<int64_t>(hidden.size()), batch = static_cast<int64_t>(threads());
  for (int64_t first = 0; first < count; first += batch) {
    check_interrupt();
    std::vector<Matrix> inputs(static_cast<size_t>(std::min(batch, count - first)));
    parallel_for(static_cast<int64_t>(inputs.size()), [&](int64_t i) {
      inputs[static_cast<size_t>(i)] = model.tap_input(layer, tap, hidden[static_cast<size_t>(first + i)], all_tokens);
    });
    for (const Matrix& x : inputs) {
      if (out.hessian.empty()) out.hessian = Matrix(x.cols(), x.cols());
      add_gram(x, out.hessian);
      out.tokens += x.rows();
    }
  }
  return out;
}

}  // namespace

InputStatistics measure_tap(const Decoder& model, int layer, Tap tap, std::span<const Matrix> hidden) {
  InputStatistics out = sum_inputs(model, layer, tap, hidden, false);
  const int64_t visits = out.tokens;
  if (tap.expert >= 0 && visits < kFewestExpertTokens) out = sum_inputs(model, layer, tap, hidden, true);
  out.visits = visits;
  const float scale = 1.0f / static_cast<float>(std::max<int64_t>(1, out.tokens));
  parallel_for(out.hessian.rows(), [&](int64_t r) {
    for (int64_t c = 0; c <= r; ++c) out.hessian(r, c) *= scale;
  });
  mirror_lower(out.hessian);
  return out;
}

void advance_attention(const Decoder& model, int layer, std::span<Matrix> hidden) {
  parallel_for(static_cast<int64_t>(hidden.size()), [&](int64_t i) {
    check_interrupt();
    model.attention(layer, hidden[static_cast<size_t>(i)]);
  });
}

void advance_feed_forward(const Decoder& model, int layer, std::span<Matrix> hidden) {
  parallel_for(static_cast<int64_t>(hidden.size()), [&](int64_t i) {
    check_interrupt();
    model.feed_forward(layer, hidden[static_cast<size_t>(i)]);
  });
}

}  // namespace pare
