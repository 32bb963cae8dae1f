#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/model/elementwise.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// After highway.h
#include <hwy/contrib/math/math-inl.h>

#include "pare/model/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace pare::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors of up to 16 lanes: a sum over a row always has the same 16 parts, whatever the machine's vectors.
constexpr size_t kParts = 16;
using D = hn::CappedTag<float, kParts>;

// x / (1 + exp(-exponent)). Highway's Exp is wrong beyond 88.7, where floats end.
template <class V>
V sigmoid_times(D d, V x, V exponent) {
  const V power = hn::Min(hn::Neg(exponent), hn::Set(d, 88.0f));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), hn::Exp(d, power)));
}

template <class V>
V silu(D d, V x) {
  return sigmoid_times(d, x, x);
}

// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x³)
template <class V>
V gelu_tanh(D d, V x) {
  const V cube = hn::Mul(hn::Mul(x, x), x);
  const V u = hn::Mul(hn::Set(d, 0.7978845608028654f), hn::Add(x, hn::Mul(hn::Set(d, 0.044715f), cube)));
  return sigmoid_times(d, x, hn::Add(u, u));
}

template <class Function>
void apply(float* x, const float* up, size_t count, const Function& function) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const auto step = [&](size_t i, size_t n) {
    HWY_ALIGN float tail[kParts] = {};
    HWY_ALIGN float up_tail[kParts] = {};
    const bool whole = n == lanes;
    if (!whole) {
      std::copy_n(x + i, n, tail);
      if (up) std::copy_n(up + i, n, up_tail);
    }
    auto y = function(d, whole ? hn::LoadU(d, x + i) : hn::Load(d, tail));
    if (up) y = hn::Mul(y, whole ? hn::LoadU(d, up + i) : hn::Load(d, up_tail));
    if (whole) {
      hn::StoreU(y, d, x + i);
    } else {
      hn::Store(y, d, tail);
      std::copy_n(tail, n, x + i);
    }
  };
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) step(i, lanes);
  if (i < count) step(i, count - i);
}

void Silu(float* x, const float* up, size_t count) {
  apply(x, up, count, [](D d, auto v) { return silu(d, v); });
}
void GeluTanh(float* x, const float* up, size_t count) {
  apply(x, up, count, [](D d, auto v) { return gelu_tanh(d, v); });
}

float Highest(const float* x, size_t count) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  auto highest = hn::Set(d, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) highest = hn::Max(highest, hn::LoadU(d, x + i));
  float out = hn::GetLane(hn::MaxOfLanes(d, highest));
  for (; i < count; ++i) out = std::max(out, x[i]);
  return out;
}

float SumOfParts(float* parts) {
  for (size_t width = kParts / 2; width > 0; width /= 2)
    for (size_t i = 0; i < width; ++i) parts[i] += parts[i + width];
  return parts[0];
}

// x = exp(scale (x - highest)); returns the sum.
float ExpRow(float* x, size_t count, float scale, float highest) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const auto shift = hn::Set(d, highest), factor = hn::Set(d, scale);
  HWY_ALIGN float parts[kParts] = {};
  size_t i = 0;
  for (; i + kParts <= count; i += kParts)
    for (size_t j = 0; j < kParts; j += lanes) {
      const auto e = hn::Exp(d, hn::Mul(factor, hn::Sub(hn::LoadU(d, x + i + j), shift)));
      hn::StoreU(e, d, x + i + j);
      hn::Store(hn::Add(hn::Load(d, parts + j), e), d, parts + j);
    }
  HWY_ALIGN float tail[kParts] = {};
  const size_t rest = count - i;
  std::copy_n(x + i, rest, tail);
  for (size_t j = 0; j < rest; j += lanes)
    hn::Store(hn::Exp(d, hn::Mul(factor, hn::Sub(hn::Load(d, tail + j), shift))), d, tail + j);
  for (size_t j = 0; j < rest; ++j) {
    x[i + j] = tail[j];
    parts[j] += tail[j];
  }
  return SumOfParts(parts);
}

}  // namespace pare::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cassert>
#include <cmath>
#include <stdexcept>

#include "pare/base/threads.h"

namespace pare {
HWY_EXPORT(Silu);
HWY_EXPORT(GeluTanh);
HWY_EXPORT(Highest);
HWY_EXPORT(ExpRow);

namespace {

// Rows in parallel, several at a time where they are short: waking a thread takes as long as some thousand floats.
template <class Body>
void for_rows(int64_t rows, int64_t cols, const Body& body) {
  const int64_t tile = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols));
  parallel_for((rows + tile - 1) / tile, [&](int64_t i) {
    for (int64_t r = i * tile; r < std::min(rows, (i + 1) * tile); ++r) body(r);
  });
}

// Sum of f(x[i]) in 16 fixed parts, which compilers turn into vectors of any width without changing the result.
template <class Function>
float sum_of(const float* x, int64_t n, const Function& f) {
  float parts[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t j = 0; j < 16; ++j) parts[j] += f(x[i + j]);
  for (int64_t j = 0; i + j < n; ++j) parts[j] += f(x[i + j]);
  for (int64_t width = 8; width > 0; width /= 2)
    for (int64_t j = 0; j < width; ++j) parts[j] += parts[j + width];
  return parts[0];
}

void rms_row(float eps, const float* x, float* out, int64_t n) {
  const float mean = sum_of(x, n, [](float v) { return v * v; }) / static_cast<float>(n);
  const float scale = 1 / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale;
}

void layer_row(float eps, const float* x, float* out, int64_t n) {
  const float mean = sum_of(x, n, [](float v) { return v; }) / static_cast<float>(n);
  const float variance = sum_of(x, n, [=](float v) { return (v - mean) * (v - mean); }) / static_cast<float>(n);
  const float scale = 1 / std::sqrt(variance + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * scale;
}

// `norm` from its element `first` on.
void normalize_row(NormKind kind, float eps, const NormWeights& norm, int64_t first, const float* x, float* out,
                   int64_t n) {
  kind == NormKind::rms ? rms_row(eps, x, out, n) : layer_row(eps, x, out, n);
  if (!norm.weight.empty())
    for (int64_t i = 0; i < n; ++i) out[i] *= norm.weight[static_cast<size_t>(first + i)];
  if (!norm.bias.empty())
    for (int64_t i = 0; i < n; ++i) out[i] += norm.bias[static_cast<size_t>(first + i)];
}

}  // namespace

void normalize(NormKind kind, double eps, const NormWeights& norm, MatrixView x, float* out, int64_t out_stride) {
  assert(norm.weight.empty() || x.cols == std::ssize(norm.weight));
  for_rows(x.rows, x.cols, [&](int64_t r) {
    normalize_row(kind, static_cast<float>(eps), norm, 0, x.row(r), out + r * out_stride, x.cols);
  });
}

void normalize_heads(NormKind kind, double eps, const NormWeights& norm, float* x, int64_t tokens, int64_t heads,
                     int64_t width, int64_t stride) {
  const bool own = std::ssize(norm.weight) > width;
  for_rows(tokens, heads * width, [&](int64_t t) {
    for (int64_t h = 0; h < heads; ++h) {
      float* head = x + t * stride + h * width;
      normalize_row(kind, static_cast<float>(eps), norm, own ? h * width : 0, head, head, width);
    }
  });
}

void activate(Activation activation, float* x, const float* up, int64_t rows, int64_t cols) {
  for_rows(rows, cols, [&](int64_t r) {
    float* row = x + r * cols;
    const float* other = up ? up + r * cols : nullptr;
    const auto count = static_cast<size_t>(cols);
    switch (activation) {
      case Activation::silu:
        HWY_DYNAMIC_DISPATCH(Silu)(row, other, count);
        return;
      case Activation::gelu_tanh:
        HWY_DYNAMIC_DISPATCH(GeluTanh)(row, other, count);
        return;
      case Activation::gelu:
        for (size_t i = 0; i < count; ++i) row[i] *= 0.5f * (1 + std::erf(row[i] * 0.70710678f));
        break;
      case Activation::relu:
        for (size_t i = 0; i < count; ++i) row[i] = std::max(row[i], 0.0f);
        break;
      case Activation::xielu:
        throw std::logic_error("xIELU has parameters");
      case Activation::relu_squared:
        for (size_t i = 0; i < count; ++i) row[i] = std::max(row[i], 0.0f) * std::max(row[i], 0.0f);
        break;
    }
    if (!other) return;
    for (size_t i = 0; i < count; ++i) row[i] *= other[i];
  });
}

void Softmax::add_score(float score) {
  highest_ = score;
  sum_ = 1;
}

float Softmax::add(std::span<float> scores) {
  if (scores.empty()) return 1;
  const float before = highest_;
  highest_ = std::max(highest_, HWY_DYNAMIC_DISPATCH(Highest)(scores.data(), scores.size()));
  const float part = HWY_DYNAMIC_DISPATCH(ExpRow)(scores.data(), scores.size(), scale_, highest_);
  const float shrink = before == highest_ ? 1 : std::exp(scale_ * (before - highest_));
  sum_ = sum_ * shrink + part;
  return shrink;
}

void add_bias(std::span<const float> bias, Matrix& x) {
  if (bias.empty()) return;
  for_rows(x.rows(), x.cols(), [&](int64_t r) {
    float* row = x.row(r);
    for (size_t i = 0; i < bias.size(); ++i) row[i] += bias[i];
  });
}

namespace {

template <class Function>
void replace_each(Matrix& x, const Function& f) {
  for_rows(x.rows(), x.cols(), [&](int64_t r) {
    float* row = x.row(r);
    for (int64_t i = 0; i < x.cols(); ++i) row[i] = f(row[i]);
  });
}

}  // namespace

void scale_by(float factor, Matrix& x) {
  if (factor != 1) replace_each(x, [=](float v) { return v * factor; });
}
void clip(float limit, Matrix& x) {
  replace_each(x, [=](float v) { return std::clamp(v, -limit, limit); });
}
void cap(float limit, Matrix& x) {
  replace_each(x, [=](float v) { return limit * std::tanh(v / limit); });
}

void add_rows(const Matrix& x, Matrix& sum) {
  for_rows(sum.rows(), sum.cols(), [&](int64_t r) {
    const float* from = x.row(r);
    float* to = sum.row(r);
    for (int64_t i = 0; i < sum.cols(); ++i) to[i] += from[i];
  });
}

}  // namespace pare
#endif
