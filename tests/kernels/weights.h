// Random weights and the judge of products: sums in double over values that no kernel has touched.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "pare/base/float_formats.h"
#include "pare/base/threads.h"
#include "pare/grid/line.h"
#include "pare/kernels/packed.h"

namespace pare::test {

using Random = std::mt19937;
inline int integer(Random& random, int lowest, int highest) {
  return std::uniform_int_distribution<int>(lowest, highest)(random);
}
inline float normal(Random& random) { return std::normal_distribution<float>()(random); }

inline Matrix random_matrix(Random& random, int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  for (float& x : m.values()) x = normal(random);
  return m;
}

// Scales as files hold them: exact in f16, of either sign, now and then zero or subnormal.
inline float random_scale(Random& random) {
  const int kind = integer(random, 0, 40);
  if (kind == 0) return 0;
  if (kind == 1) return 0x3p-24f;
  return round_to_f16(normal(random) * 0.01f);
}
inline void fill(Plane<float>& p, Random& random) {
  for (float& x : p.values()) x = random_scale(random);
}
template <class T>
void fill(Plane<T>& p, Random& random, int lowest, int highest) {
  for (T& x : p.values()) x = static_cast<T>(integer(random, lowest, highest));
}

// Any codes and parameters that the grid can store; no fit is involved.
inline Quantized random_quantized(const Grid& grid, Shape shape, bool ordered, Random& random) {
  Quantized q(grid, shape);
  int top = 255;
  if (auto* p = std::get_if<Affine>(&q.params)) {
    top = (1 << p->spec.bits) - 1;
    fill(p->scale, random);
    fill(p->bias, random);
    for (float& x : p->scale.values()) x = stored_scale(p->spec.scale, x);
    for (float& x : p->bias.values()) x = stored_scale(p->spec.scale, x);
    if (!p->spec.symmetric && !p->spec.biased) fill(p->zero, random, p->spec.lowest_zero, top);
  } else if (auto* b = std::get_if<Block>(&q.params)) {
    top = codes_of(grid) - 1;
    fill(b->scale, random);
    fill(b->min, random);
  } else if (auto* t = std::get_if<Codebook>(&q.params)) {
    top = codes_of(grid) - 1;
    for (float& x : t->scale.values()) x = stored_scale(t->spec.scale, random_scale(random));
  } else if (auto* l = std::get_if<Lattice>(&q.params)) {
    top = codes_of(grid) - 1;
    fill(l->d, random);
    fill(l->scale, random, 0, static_cast<int>(q.parameter(0, 0, 1).highest));
  } else {
    auto& s = std::get<SuperBlock>(q.params);
    top = codes_of(grid) - 1;
    fill(s.d, random);
    const int first_scale = has_mins(grid) ? 2 : 1;  // among the parameters, after the super-scales
    const Parameter sub = q.parameter(0, 0, first_scale);
    fill(s.scale, random, static_cast<int>(sub.lowest), static_cast<int>(sub.highest));
    if (has_mins(grid)) fill(s.dmin, random), fill(s.min, random, 0, static_cast<int>(sub.highest));
  }
  fill(q.codes, random, 0, top);
  if (ordered) {
    q.order.resize(static_cast<size_t>(shape.cols));
    std::iota(q.order.begin(), q.order.end(), 0);
    std::shuffle(q.order.begin(), q.order.end(), random);
  }
  return q;
}

// Activations that lie apart, and a result with room between its rows.
struct Product {
  Matrix x, y;
  int64_t tokens, rows, cols;

  Product(Random& random, int64_t t, Shape w)
      : x(random_matrix(random, t, w.cols + 3)), y(t, w.rows + 5, kUntouched), tokens(t), rows(w.rows), cols(w.cols) {}

  MatrixView activations() const { return {x.data(), tokens, cols, x.cols()}; }
  const Matrix& by(const PackedMatrix& w) {
    std::ranges::fill(y.values(), kUntouched);
    w.multiply(activations(), y.data(), y.cols());
    return y;
  }
  // Every element within 1e-5 of the norms of what was multiplied; nothing written beyond a row's end.
  void expect_near(const Matrix& w) const {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0, w2 = 0, x2 = 0;
        for (int64_t c = 0; c < cols; ++c) {
          sum += double{x(t, c)} * w(r, c);
          w2 += double{w(r, c)} * w(r, c);
          x2 += double{x(t, c)} * x(t, c);
        }
        ASSERT_NEAR(y(t, r), sum, 1e-5 * std::sqrt(w2 * x2) + 1e-30) << "token " << t << ", row " << r;
      }
      for (int64_t c = rows; c < y.cols(); ++c) ASSERT_EQ(y(t, c), kUntouched);
    }
  }

  static constexpr float kUntouched = -12345.0f;
};

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::ranges::equal(a, b,
                            [](float x, float y) { return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y); });
}

// PARE_KERNEL for the packing done within a scope.
class ForceKernel {
 public:
  explicit ForceKernel(const char* name) { ::setenv("PARE_KERNEL", name, 1); }
  ~ForceKernel() { ::unsetenv("PARE_KERNEL"); }
  ForceKernel(const ForceKernel&) = delete;
  ForceKernel& operator=(const ForceKernel&) = delete;
};

class Threads {
 public:
  explicit Threads(int count) : before_(threads()) { set_threads(count); }
  ~Threads() { set_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

// Calls body() once for every instruction set that this processor has.
template <class Body>
void for_instruction_sets(Body body) {
  const int64_t all = hwy::SupportedTargets();
  for (const int64_t target : {HWY_SCALAR, HWY_SSE4, HWY_AVX2, HWY_AVX3}) {
    if (!(all & target)) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace pare::test
