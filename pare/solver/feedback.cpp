#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/solver/feedback.cpp"
#include "pare/solver/feedback.h"

#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace pare::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::CappedTag<float, kLanes>;
using V = hn::Vec<F>;

void ScaledDifference(const Lanes& a, const Lanes& b, float factor, Lanes& out) {
  const F f;
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(f)) {
    const V difference = hn::Sub(hn::Load(f, a.v + lane), hn::Load(f, b.v + lane));
    hn::Store(hn::Mul(difference, hn::Set(f, factor)), f, out.v + lane);
  }
}

HWY_INLINE V more(V w, V error, float factor) { return hn::Add(w, hn::Mul(error, hn::Set(F(), factor))); }

HWY_INLINE void feed_back_one(const Lanes& error, const float* u, int64_t count, Lanes* weights) {
  const F f;
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(f)) {
    const V e = hn::Load(f, error.v + lane);
    for (int64_t k = 0; k < count; ++k) {
      float* w = weights[k].v + lane;
      hn::Store(more(hn::Load(f, w), e, u[k]), f, w);
    }
  }
}

// Four errors while a weight is in a register.
HWY_INLINE void feed_back_four(const Lanes* errors, const float* u, int64_t stride, int64_t count, Lanes* weights) {
  const F f;
  const float *u0 = u, *u1 = u + stride, *u2 = u + 2 * stride, *u3 = u + 3 * stride;
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(f)) {
    const V e0 = hn::Load(f, errors[0].v + lane), e1 = hn::Load(f, errors[1].v + lane);
    const V e2 = hn::Load(f, errors[2].v + lane), e3 = hn::Load(f, errors[3].v + lane);
    for (int64_t k = 0; k < count; ++k) {
      float* w = weights[k].v + lane;
      hn::Store(more(more(more(more(hn::Load(f, w), e0, u0[k]), e1, u1[k]), e2, u2[k]), e3, u3[k]), f, w);
    }
  }
}

void FeedBack(const Lanes* errors, int64_t columns, const float* u, int64_t stride, int64_t count, Lanes* weights) {
  int64_t i = 0;
  for (; i + 4 <= columns; i += 4) feed_back_four(errors + i, u + i * stride, stride, count, weights);
  for (; i < columns; ++i) feed_back_one(errors[i], u + i * stride, count, weights);
}

}  // namespace pare::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare {

HWY_EXPORT(ScaledDifference);
HWY_EXPORT(FeedBack);

void scaled_difference(const Lanes& a, const Lanes& b, float factor, Lanes& out) {
  HWY_DYNAMIC_DISPATCH(ScaledDifference)(a, b, factor, out);
}
void feed_back(const Lanes* errors, int64_t columns, const float* u, int64_t stride, int64_t count, Lanes* weights) {
  HWY_DYNAMIC_DISPATCH(FeedBack)(errors, columns, u, stride, count, weights);
}

}  // namespace pare
#endif
