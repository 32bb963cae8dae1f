#include "pare/calibrate/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "pare/base/threads.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

std::vector<Matrix> hidden_states(const Decoder& model, int sequences) {
  std::vector<Matrix> out;
  for (int s = 0; s < sequences; ++s) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 20 + s; ++i) ids.push_back((i * 31 + 7 * s) % 4000);
    out.push_back(model.embed(ids));
  }
  return out;
}

TEST(Statistics, HessianIsTheMeanOuterProductOfTheSitesInput) {
  const Decoder model(Checkpoint::open(test::demo_model()));
  const auto hidden = hidden_states(model, 3);
  for (const Site site : {Site::attn_in, Site::attn_out}) {
    const InputStatistics s = measure_tap(model, 0, {site}, hidden);
    const int64_t k = s.hessian.rows();
    std::vector<double> expected(static_cast<size_t>(k * k));
    int64_t tokens = 0;
    for (const Matrix& h : hidden) {
      const Matrix x = model.tap_input(0, {site}, h);
      tokens += x.rows();
      for (int64_t t = 0; t < x.rows(); ++t)
        for (int64_t i = 0; i < k; ++i)
          for (int64_t j = 0; j < k; ++j) expected[static_cast<size_t>(i * k + j)] += double(x(t, i)) * x(t, j);
    }
    EXPECT_EQ(s.tokens, tokens);
    for (int64_t i = 0; i < k; i += 7)
      for (int64_t j = 0; j < k; ++j) {
        const double e = expected[static_cast<size_t>(i * k + j)] / static_cast<double>(tokens);
        ASSERT_NEAR(s.hessian(i, j), e, 1e-4 * (1 + std::fabs(e)));
        ASSERT_EQ(s.hessian(i, j), s.hessian(j, i));
      }
    EXPECT_EQ(s.mean_square()[5], s.hessian(5, 5));
  }
}

TEST(Statistics, DoesNotDependOnThreads) {
  const Decoder model(Checkpoint::open(test::demo_model()));
  const auto hidden = hidden_states(model, 5);
  set_threads(1);
  const InputStatistics one = measure_tap(model, 0, {Site::ffn_out}, hidden);
  set_threads(3);
  const InputStatistics three = measure_tap(model, 0, {Site::ffn_out}, hidden);
  set_threads(0);
  EXPECT_EQ(one.hessian, three.hessian);
}

TEST(Statistics, AdvancingAllEqualsOneByOne) {
  const Decoder model(Checkpoint::open(test::demo_model()));
  auto hidden = hidden_states(model, 3);
  auto expected = hidden;
  for (Matrix& h : expected) {
    model.attention(1, h);
    model.feed_forward(1, h);
  }
  advance_attention(model, 1, hidden);
  advance_feed_forward(model, 1, hidden);
  for (size_t i = 0; i < hidden.size(); ++i) EXPECT_EQ(hidden[i], expected[i]);
}

}  // namespace
}  // namespace pare
