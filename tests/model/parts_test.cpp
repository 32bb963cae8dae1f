// The pieces of the forward pass, each against its formula in double.
#include <cmath>

#include "pare/model/attention.h"
#include "pare/model/elementwise.h"
#include "pare/model/rope.h"
#include "tests/model/models.h"

namespace pare::test {
namespace {

float wave(int64_t i) { return 3 * std::sin(static_cast<float>(i) * 1.7f); }

TEST(Activation, EveryLengthAndKind) {
  const auto formula = [](Activation a, double x) {
    switch (a) {
      case Activation::silu:
        return x / (1 + std::exp(-x));
      case Activation::gelu:
        return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
      case Activation::gelu_tanh:
        return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
      case Activation::relu:
        return std::max(x, 0.0);
      case Activation::relu_squared:
        return std::max(x, 0.0) * std::max(x, 0.0);
      case Activation::xielu:
        break;  // has parameters
    }
    return 0.0;
  };
  for (const Activation a :
       {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::relu_squared})
    for (const int64_t cols : {1, 7, 8, 9, 31, 64, 100}) {
      std::vector<float> x, up, alone;
      for (int64_t i = 0; i < 3 * cols; ++i) {
        x.push_back(4 * wave(i));
        up.push_back(wave(i + 5));
      }
      alone = x;
      std::vector<float> gated = x;
      activate(a, alone.data(), nullptr, 3, cols);
      activate(a, gated.data(), up.data(), 3, cols);
      for (size_t i = 0; i < x.size(); ++i) {
        const double expected = formula(a, double{x[i]});
        EXPECT_NEAR(alone[i], expected, 1e-6 * std::max(1.0, std::abs(expected)));
        EXPECT_NEAR(gated[i], expected * double{up[i]}, 3e-6 * std::max(1.0, std::abs(expected)));
      }
    }
}

TEST(Activation, ExtremesStayFinite) {
  std::vector<float> x = {-1e30f, -200, -90, 90, 200, 1e30f, 0, -0.0f};
  for (const Activation a : {Activation::silu, Activation::gelu_tanh}) {
    std::vector<float> y = x;
    activate(a, y.data(), nullptr, 1, 8);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(y[i], 0, std::abs(x[i]) * 1e-37 + 1e-30);
    for (size_t i = 3; i < 6; ++i) EXPECT_FLOAT_EQ(y[i], x[i]);
    EXPECT_EQ(y[6], 0);
  }
}

// In one part or several, the weights divided by the sum are the softmax.
TEST(SoftmaxTest, IsAccurateToAMillionth) {
  for (const size_t n : {1u, 3u, 16u, 17u, 64u, 1001u})
    for (const size_t part : {n, size_t{7}, size_t{400}}) {
      std::vector<float> x(n);
      for (size_t i = 0; i < n; ++i) x[i] = 9 * wave(static_cast<int64_t>(i)) + static_cast<float>(i) / 100;
      if (n > 16) x[2] = -1e30f;
      const std::vector<float> before = x;
      Softmax softmax(0.37f);
      for (size_t at = 0; at < n; at += part) {
        const float shrink = softmax.add({x.data() + at, std::min(part, n - at)});
        for (size_t i = 0; i < at; ++i) x[i] *= shrink;
      }
      double sum = 0;
      const double highest = *std::max_element(before.begin(), before.end());
      for (const float v : before) sum += std::exp((double{v} - highest) * 0.37);
      for (size_t i = 0; i < n; ++i) {
        const double e = std::exp((double{before[i]} - highest) * 0.37) / sum;
        EXPECT_NEAR(x[i] / softmax.sum(), e, 2e-6 * e + 1e-12);
      }
    }
}

TEST(Norm, BothKindsInPlaceOrNot) {
  for (const int64_t n : {1, 5, 16, 50}) {
    Matrix x(3, n);
    NormWeights norm;
    for (int64_t i = 0; i < n; ++i) {
      norm.weight.push_back(wave(i) + 4);
      norm.bias.push_back(wave(2 * i));
      for (int64_t r = 0; r < 3; ++r) x(r, i) = wave(i + 100 * r) + static_cast<float>(r);
    }
    for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
      Matrix out = x;
      normalize(kind, 1e-5, norm, out, out.data(), n);
      for (int64_t r = 0; r < 3; ++r) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < n; ++i) mean += double{x(r, i)} / double(n);
        if (kind == NormKind::rms) mean = 0;
        for (int64_t i = 0; i < n; ++i) square += (double{x(r, i)} - mean) * (double{x(r, i)} - mean) / double(n);
        for (int64_t i = 0; i < n; ++i) {
          const auto at = static_cast<size_t>(i);
          const double alone = (double{x(r, i)} - mean) / std::sqrt(square + 1e-5);
          EXPECT_NEAR(out(r, i), alone * double{norm.weight[at]} + double{norm.bias[at]}, 1e-4);
        }
      }
    }
  }
}

TEST(RopeTest, InterleavedPairsAreTheSameRotation) {
  Rope halves;
  halves.dims = 6;
  Rope pairs = halves;
  pairs.interleaved = true;
  std::vector<float> a(2 * 16), b(a.size());  // two heads of 8, of which 6 turn
  for (int64_t t = 0; t < 2; ++t)
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t i = 0; i < 8; ++i) {
        const int64_t to = i < 6 ? (i % 3) * 2 + i / 3 : i;
        a[static_cast<size_t>(t * 16 + h * 8 + i)] = wave(t * 16 + h * 8 + i);
        b[static_cast<size_t>(t * 16 + h * 8 + to)] = wave(t * 16 + h * 8 + i);
      }
  const std::vector<float> before = a;
  const Frequencies f = rope_frequencies(halves, 0);
  rotate(halves, f, a.data(), 2, 2, 8, 16, 11);
  rotate(pairs, f, b.data(), 2, 2, 8, 16, 11);
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t i = 0; i < 8; ++i) {
      const int64_t to = i < 6 ? (i % 3) * 2 + i / 3 : i;
      EXPECT_EQ(a[static_cast<size_t>(r * 8 + i)], b[static_cast<size_t>(r * 8 + to)]);
    }
  EXPECT_EQ(a[6], before[6]);  // beyond the rotated dimensions
  EXPECT_NE(a[0], before[0]);
}

TEST(RopeTest, LlamaFactorsFollowTheWavelengths) {
  Rope r;
  r.kind = Rope::Kind::llama3;
  r.theta = 500000;
  r.dims = 16;
  r.factor = 8;
  r.original_context = 64;
  const std::vector<float> factors = llama3_factors(r);
  ASSERT_EQ(factors.size(), 8u);
  EXPECT_EQ(factors.front(), 1);
  EXPECT_EQ(factors.back(), 8);
  EXPECT_TRUE(std::is_sorted(factors.begin(), factors.end()));
  EXPECT_GT(factors[1], 1);  // wavelength 32.4, between 16 and 64
  EXPECT_LT(factors[1], 8);
  Rope by_tensor = r;  // a GGUF file says the same by its tensor
  by_tensor.kind = Rope::Kind::plain;
  by_tensor.frequency_factors = factors;
  EXPECT_EQ(rope_frequencies(r, 1).inverse, rope_frequencies(by_tensor, 1).inverse);
}

TEST(RopeTest, ScalingStretchesPositions) {
  Rope plain;
  plain.dims = 16;
  plain.original_context = 32;
  const auto base = rope_frequencies(plain, 100).inverse;
  Rope linear = plain;
  linear.kind = Rope::Kind::linear;
  linear.factor = 4;
  for (size_t i = 0; i < base.size(); ++i) EXPECT_FLOAT_EQ(rope_frequencies(linear, 1).inverse[i], base[i] / 4);
  Rope dynamic = linear;
  dynamic.kind = Rope::Kind::dynamic;
  EXPECT_EQ(rope_frequencies(dynamic, 32).inverse, base);  // nothing up to the original context
  EXPECT_LT(rope_frequencies(dynamic, 33).inverse.back(), base.back());
  Rope yarn = linear;
  yarn.kind = Rope::Kind::yarn;
  const Frequencies f = rope_frequencies(yarn, 1);
  EXPECT_EQ(f.inverse.front(), base.front());
  EXPECT_FLOAT_EQ(f.inverse.back(), base.back() / 4);
  EXPECT_FLOAT_EQ(f.scale, 1 + 0.1f * std::log(4.0f));
  yarn.mscale = 1;
  yarn.mscale_all_dim = 1;
  EXPECT_FLOAT_EQ(rope_frequencies(yarn, 1).scale, 1);
  yarn.attention_factor = 1.5;
  EXPECT_FLOAT_EQ(rope_frequencies(yarn, 1).scale, 1.5f);
}

// Views with gaps, queries in the middle of the keys, every grouping.
TEST(Attention, EqualsItsFormula) {
  struct Shape {
    int64_t heads, kv_heads, dim, window, first, tokens;
  };
  for (const Shape s : {Shape{2, 2, 4, 0, 0, 9}, Shape{6, 2, 8, 0, 5, 3}, Shape{4, 1, 16, 3, 7, 40},
                        Shape{1, 1, 2, 1, 0, 5}, Shape{8, 8, 4, 0, 200, 1}, Shape{3, 3, 4, 0, 0, 150}}) {
    const int64_t q_width = s.heads * s.dim, kv_width = s.kv_heads * s.dim, keys = s.first + s.tokens;
    Matrix q(s.tokens, q_width + 3), k(keys, kv_width + 5), v(keys, kv_width + 1), out(s.tokens, q_width);
    for (int64_t i = 0; i < q.size(); ++i) q.data()[i] = wave(i);
    for (int64_t i = 0; i < k.size(); ++i) k.data()[i] = wave(3 * i + 1) / 3;
    for (int64_t i = 0; i < v.size(); ++i) v.data()[i] = wave(7 * i + 2);
    attend({.heads = s.heads, .kv_heads = s.kv_heads, .head_dim = s.dim, .window = s.window},
           MatrixView(q).cols_between(0, q_width), MatrixView(k).cols_between(0, kv_width),
           MatrixView(v).cols_between(0, kv_width), s.first, out.data());
    for (int64_t t = 0; t < s.tokens; ++t)
      for (int64_t h = 0; h < s.heads; ++h) {
        const int64_t kv = h / (s.heads / s.kv_heads) * s.dim;
        std::vector<double> mixed(static_cast<size_t>(s.dim));
        double total = 0;
        for (int64_t j = 0; j <= s.first + t; ++j) {
          if (s.window > 0 && j <= s.first + t - s.window) continue;
          double dot = 0;
          for (int64_t i = 0; i < s.dim; ++i) dot += double{q(t, h * s.dim + i)} * double{k(j, kv + i)};
          const double p = std::exp(dot / std::sqrt(double(s.dim)));
          total += p;
          for (int64_t i = 0; i < s.dim; ++i) mixed[static_cast<size_t>(i)] += p * double{v(j, kv + i)};
        }
        for (int64_t i = 0; i < s.dim; ++i)
          EXPECT_NEAR(out(t, h * s.dim + i), mixed[static_cast<size_t>(i)] / total, 1e-5);
      }
  }
}

}  // namespace
}  // namespace pare::test
