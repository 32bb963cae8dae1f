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

// Vectors of 8 lanes where the machine has them, never more: a sum over a row then always has the same 8 parts.
using D = hn::CappedTag<float, 8>;

// x / (1 + exp(-beta x)), which is silu for beta = 1.
template <class V>
V sigmoid_times(D d, V x, V exponent) {
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), hn::Exp(d, hn::Neg(exponent))));
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
    HWY_ALIGN float tail[8] = {};
    HWY_ALIGN float up_tail[8] = {};
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

// Sums in 8 fixed parts, whatever the lanes.
float ExpRow(float* x, size_t count, float scale) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  float highest = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < count; ++i) highest = std::max(highest, x[i]);
  const auto shift = hn::Set(d, highest * scale), factor = hn::Set(d, scale);
  HWY_ALIGN float parts[8] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (size_t j = 0; j < 8; j += lanes) {
      const auto e = hn::Exp(d, hn::Sub(hn::Mul(hn::LoadU(d, x + i + j), factor), shift));
      hn::StoreU(e, d, x + i + j);
      hn::Store(hn::Add(hn::Load(d, parts + j), e), d, parts + j);
    }
  float sum = ((parts[0] + parts[1]) + (parts[2] + parts[3])) + ((parts[4] + parts[5]) + (parts[6] + parts[7]));
  HWY_ALIGN float tail[8] = {};
  const size_t rest = count - i;
  std::copy_n(x + i, rest, tail);
  for (size_t j = 0; j < rest; j += lanes)
    hn::Store(hn::Exp(d, hn::Sub(hn::Mul(hn::Load(d, tail + j), factor), shift)), d, tail + j);
  for (size_t j = 0; j < rest; ++j) {
    x[i + j] = tail[j];
    sum += tail[j];
  }
  return sum;
}

}  // namespace pare::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cassert>
#include <cmath>

#include "pare/base/threads.h"

namespace pare {
HWY_EXPORT(Silu);
HWY_EXPORT(GeluTanh);
HWY_EXPORT(ExpRow);

namespace {

constexpr int64_t kRows = 16;  // that one thread takes at a time
int64_t tiles(int64_t rows) { return (rows + kRows - 1) / kRows; }

template <class Body>
void for_rows(int64_t rows, const Body& body) {
  parallel_for(tiles(rows), [&](int64_t tile) {
    for (int64_t r = tile * kRows; r < std::min(rows, (tile + 1) * kRows); ++r) body(r);
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

void rms_row(float eps, const float* weight, const float* x, float* out, int64_t n) {
  const float mean = sum_of(x, n, [](float v) { return v * v; }) / static_cast<float>(n);
  const float scale = 1 / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

void layer_row(float eps, const NormWeights& norm, const float* x, float* out, int64_t n) {
  const float mean = sum_of(x, n, [](float v) { return v; }) / static_cast<float>(n);
  const float variance = sum_of(x, n, [=](float v) { return (v - mean) * (v - mean); }) / static_cast<float>(n);
  const float scale = 1 / std::sqrt(variance + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * scale * norm.weight[static_cast<size_t>(i)];
  if (norm.bias.empty()) return;
  for (int64_t i = 0; i < n; ++i) out[i] += norm.bias[static_cast<size_t>(i)];
}

}  // namespace

void normalize(NormKind kind, double eps, const NormWeights& norm, MatrixView x, float* out, int64_t out_stride) {
  assert(x.cols == static_cast<int64_t>(norm.weight.size()));
  const float e = static_cast<float>(eps);
  for_rows(x.rows, [&](int64_t r) {
    float* y = out + r * out_stride;
    if (kind == NormKind::rms)
      rms_row(e, norm.weight.data(), x.row(r), y, x.cols);
    else
      layer_row(e, norm, x.row(r), y, x.cols);
  });
}

void normalize_heads(double eps, const NormWeights& norm, float* x, int64_t tokens, int64_t heads, int64_t stride) {
  const auto width = static_cast<int64_t>(norm.weight.size());
  for_rows(tokens, [&](int64_t t) {
    for (int64_t h = 0; h < heads; ++h) {
      float* head = x + t * stride + h * width;
      rms_row(static_cast<float>(eps), norm.weight.data(), head, head, width);
    }
  });
}

void activate(Activation activation, float* x, const float* up, int64_t rows, int64_t cols) {
  for_rows(rows, [&](int64_t r) {
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
    }
    if (!other) return;
    for (size_t i = 0; i < count; ++i) row[i] *= other[i];
  });
}

float exp_row(std::span<float> x, float scale) { return HWY_DYNAMIC_DISPATCH(ExpRow)(x.data(), x.size(), scale); }

void add_bias(std::span<const float> bias, Matrix& x) {
  if (bias.empty()) return;
  for_rows(x.rows(), [&](int64_t r) {
    float* row = x.row(r);
    for (size_t i = 0; i < bias.size(); ++i) row[i] += bias[i];
  });
}

void add_rows(const Matrix& x, Matrix& sum) {
  for_rows(sum.rows(), [&](int64_t r) {
    const float* from = x.row(r);
    float* to = sum.row(r);
    for (int64_t i = 0; i < sum.cols(); ++i) to[i] += from[i];
  });
}

}  // namespace pare
#endif
