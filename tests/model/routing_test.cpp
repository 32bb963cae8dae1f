#include "pare/model/routing.h"

#include <gtest/gtest.h>

#include <cmath>

namespace pare {
namespace {

Matrix row_of(const std::vector<float>& logits) {
  Matrix m(1, static_cast<int64_t>(logits.size()));
  std::copy(logits.begin(), logits.end(), m.data());
  return m;
}

// Weight of each expert for one token; 0: not chosen.
std::vector<float> weights(const Moe& moe, const std::vector<float>& logits,
                           const std::vector<float>& correction = {}) {
  std::vector<float> out;
  for (const auto& visits : route(moe, row_of(logits), correction))
    out.push_back(visits.empty() ? 0 : visits[0].weight);
  return out;
}

TEST(Routing, SoftmaxOverAllOrOverTheChosen) {
  Moe moe{.experts = 3, .per_token = 2};
  const double a = std::exp(1.0), b = std::exp(2.0), all = a + b + std::exp(-1.0);
  EXPECT_NEAR(weights(moe, {1, 2, -1})[0], a / all, 1e-6);
  EXPECT_NEAR(weights(moe, {1, 2, -1})[1], b / all, 1e-6);
  EXPECT_EQ(weights(moe, {1, 2, -1})[2], 0);
  moe.score = Moe::Score::chosen_softmax;
  EXPECT_NEAR(weights(moe, {1, 2, -1})[1], b / (a + b), 1e-6);
  moe.score = Moe::Score::softmax;
  moe.normalized = true;
  moe.scale = 2.5f;
  EXPECT_NEAR(weights(moe, {1, 2, -1})[1], 2.5 * b / (a + b), 1e-6);
}

TEST(Routing, ACorrectionChoosesButDoesNotWeigh) {
  const Moe moe{.experts = 3, .per_token = 1, .score = Moe::Score::sigmoid, .corrected = true};
  const auto chosen = weights(moe, {3, 0, -3}, {0, 0, 2});
  EXPECT_EQ(chosen[0], 0);
  EXPECT_NEAR(chosen[2], 1 / (1 + std::exp(3.0)), 1e-6);
}

// Group 0 has the single best expert, group 1 the better two.
TEST(Routing, GroupsAreRankedByTheirBestOrBestTwo) {
  Moe moe{.experts = 4, .per_token = 1, .score = Moe::Score::sigmoid, .groups = 2, .groups_kept = 1};
  EXPECT_GT(weights(moe, {2, -4, 1.9f, 1.8f})[0], 0);
  moe.corrected = true;
  EXPECT_GT(weights(moe, {2, -4, 1.9f, 1.8f}, {0, 0, 0, 0})[2], 0);
}

TEST(Routing, TheSparseMixerWeighsAgainstThoseNearTheBest) {
  const Moe moe{.experts = 3, .per_token = 2, .score = Moe::Score::sparse_mixer, .near = 0.1f};
  const auto w = weights(moe, {2, 1.95f, 0});
  EXPECT_NEAR(w[0], 1 / (1 + std::exp(-0.05)), 1e-5);  // the third is too far away
  EXPECT_NEAR(w[1], 1, 1e-5);                          // nothing left is near
}

TEST(Routing, TokensKeepTheirOrderAndTiesGoToTheFirst) {
  const Moe moe{.experts = 2, .per_token = 1};
  Matrix logits(4, 2);
  logits(2, 1) = 1;
  const auto visits = route(moe, logits, {});
  ASSERT_EQ(visits[0].size(), 3u);
  EXPECT_EQ(visits[0][2].token, 3);
  ASSERT_EQ(visits[1].size(), 1u);
  EXPECT_EQ(visits[1][0].token, 2);
}

}  // namespace
}  // namespace pare
