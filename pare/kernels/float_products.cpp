#include "pare/kernels/float_products.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/kernels/float_products.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace pare {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
constexpr int64_t kN = static_cast<int64_t>(hn::MaxLanes(DF()));

// LoadU allows a vector anywhere but still wants whole elements; a mapped tensor may begin at an odd address.
template <class D>
HWY_INLINE hn::Vec<D> load_anywhere(D d, const std::byte* p) {
  using T = hn::TFromD<D>;
#if HWY_TARGET == HWY_SCALAR
  T value;
  std::memcpy(&value, p, sizeof value);
  return hn::LoadU(d, &value);
#else
  return hn::LoadU(d, reinterpret_cast<const T*>(p));
#endif
}

// Readers of kN weights.
struct F32 {
  static constexpr int64_t kSize = 4;
  static HWY_INLINE VF load(const std::byte* p) { return load_anywhere(DF(), p); }
};
struct F16 {
  static constexpr int64_t kSize = 2;
  static HWY_INLINE VF load(const std::byte* p) {
    return hn::PromoteTo(DF(), load_anywhere(hn::Rebind<hwy::float16_t, DF>(), p));
  }
};
struct BF16 {
  static constexpr int64_t kSize = 2;
  static HWY_INLINE VF load(const std::byte* p) {
    const auto words = hn::PromoteTo(hn::Rebind<uint32_t, DF>(), load_anywhere(hn::Rebind<uint16_t, DF>(), p));
    return hn::BitCast(DF(), hn::ShiftLeft<16>(words));
  }
};

constexpr int64_t kBlockTokens = 32;           // with a block of columns they stay in L2 while rows pass by
constexpr int64_t kBlockRowBytes = 4096;       // a block of columns: four rows of it stay in L1 while tokens pass by
constexpr int kMostTokens = kN == 16 ? 4 : 3;  // what 32 or 16 registers hold with four rows

// What is multiplied at a time: columns [first, last) of all weights.
struct Columns {
  const FloatRows& w;
  const MatrixView& x;
  int64_t first, last;
  float* y;
  int64_t y_stride;
};

// kRows x kTokens sums, each spread over the lanes of kChains vectors.
template <class Type, int kRows, int kTokens>
struct Dots {
  static constexpr int kChains = kRows * kTokens <= 4 ? 2 : 1;  // independent, to hide the latency of FMA
  VF sum[kRows][kTokens][kChains];

  HWY_INLINE void add(const std::byte* w, int64_t row_bytes, const float* x, int64_t x_stride, int chain) {
    const DF df;
    VF activation[kTokens];
    for (int t = 0; t < kTokens; ++t) activation[t] = hn::LoadU(df, x + t * x_stride);
    for (int r = 0; r < kRows; ++r) {
      const VF weight = Type::load(w + r * row_bytes);
      for (int t = 0; t < kTokens; ++t) sum[r][t][chain] = hn::MulAdd(weight, activation[t], sum[r][t][chain]);
    }
  }

  // The last columns, fewer than a vector: copied, since nothing may be read beyond the end of the file.
  HWY_INLINE void add_tail(const std::byte* w, int64_t row_bytes, const float* x, int64_t x_stride, int64_t columns) {
    std::byte weights[kRows * kN * Type::kSize] = {};
    float activations[kTokens * kN] = {};
    for (int r = 0; r < kRows; ++r)
      std::memcpy(weights + r * kN * Type::kSize, w + r * row_bytes, static_cast<size_t>(columns * Type::kSize));
    for (int t = 0; t < kTokens; ++t)
      std::memcpy(activations + t * kN, x + t * x_stride, static_cast<size_t>(columns) * sizeof(float));
    add(weights, kN * Type::kSize, activations, kN, 0);
  }

  HWY_INLINE void run(const Columns& in, int64_t row, int64_t token) {
    const DF df;
    for (auto& a : sum)
      for (auto& b : a)
        for (VF& v : b) v = hn::Zero(df);
    const int64_t row_bytes = in.w.row_bytes(), stride = in.x.stride;
    const std::byte* from = in.w.row(row);
    const float* x = in.x.row(token);
    int64_t c = in.first;
    for (; c + kN * kChains <= in.last; c += kN * kChains)
      for (int i = 0; i < kChains; ++i) add(from + (c + i * kN) * Type::kSize, row_bytes, x + c + i * kN, stride, i);
    for (; c + kN <= in.last; c += kN) add(from + c * Type::kSize, row_bytes, x + c, stride, 0);
    if (c < in.last) add_tail(from + c * Type::kSize, row_bytes, x + c, stride, in.last - c);
    for (int r = 0; r < kRows; ++r)
      for (int t = 0; t < kTokens; ++t) {
        VF total = sum[r][t][0];
        for (int i = 1; i < kChains; ++i) total = hn::Add(total, sum[r][t][i]);
        float& out = in.y[(token + t) * in.y_stride + row + r];
        const float before = in.first == 0 ? 0 : out;
        out = before + hn::GetLane(hn::SumOfLanes(df, total));
      }
  }
};

template <class Type, int kRows>
HWY_INLINE void rows_with_tokens(const Columns& in, int64_t row, int64_t first, int64_t last) {
  int64_t t = first;
  for (; t + kMostTokens <= last; t += kMostTokens) Dots<Type, kRows, kMostTokens>().run(in, row, t);
  if (t + 2 <= last) Dots<Type, kRows, 2>().run(in, row, t), t += 2;
  if (t < last) Dots<Type, kRows, 1>().run(in, row, t);
}

// Rows are grouped from `first`, which callers keep at multiples of four: any cut into tasks gives the same result
// because a row's sum does not depend on the rows beside it.
template <class Type>
void dot_rows_as(const FloatRows& w, const MatrixView& x, int64_t first, int64_t last, float* y, int64_t y_stride) {
  const int64_t cols = w.shape.cols, block = x.rows <= kMostTokens ? cols : kBlockRowBytes / Type::kSize;
  for (int64_t c = 0; c < cols; c += block)
    for (int64_t t = 0; t < x.rows; t += kBlockTokens) {
      const Columns in{w, x, c, std::min(c + block, cols), y, y_stride};
      const int64_t t_end = std::min(t + kBlockTokens, x.rows);
      int64_t r = first;
      for (; r + 4 <= last; r += 4) rows_with_tokens<Type, 4>(in, r, t, t_end);
      for (; r < last; ++r) rows_with_tokens<Type, 1>(in, r, t, t_end);
    }
}

void DotRows(const FloatRows& w, const MatrixView& x, int64_t first, int64_t last, float* y, int64_t y_stride) {
  switch (w.type) {
    case DType::f16:
      return dot_rows_as<F16>(w, x, first, last, y, y_stride);
    case DType::bf16:
      return dot_rows_as<BF16>(w, x, first, last, y, y_stride);
    default:
      return dot_rows_as<F32>(w, x, first, last, y, y_stride);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace pare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare {

HWY_EXPORT(DotRows);

void dot_rows(const FloatRows& w, MatrixView x, int64_t first, int64_t last, float* y, int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(DotRows)(w, x, first, last, y, y_stride);
}

}  // namespace pare
#endif
