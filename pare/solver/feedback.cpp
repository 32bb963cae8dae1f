#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/solver/feedback.cpp"
#include "pare/solver/feedback.h"

#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace pare::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

void FeedBack(const Lanes& error, const float* u, int64_t count, Lanes* weights) {
  const hn::CappedTag<float, kLanes> f;
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(f)) {
    const auto e = hn::Load(f, error.v + lane);
    for (int64_t k = 0; k < count; ++k) {
      float* w = weights[k].v + lane;
      hn::Store(hn::Sub(hn::Load(f, w), hn::Mul(e, hn::Set(f, u[k]))), f, w);
    }
  }
}

}  // namespace pare::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace pare {

HWY_EXPORT(FeedBack);
void feed_back(const Lanes& error, const float* u, int64_t count, Lanes* weights) {
  HWY_DYNAMIC_DISPATCH(FeedBack)(error, u, count, weights);
}

}  // namespace pare
#endif
