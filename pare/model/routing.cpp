#include "pare/model/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace pare {
namespace {

using Scores = std::vector<float>;

void softmax(std::span<float> x) {
  const float highest = *std::ranges::max_element(x);
  float sum = 0;
  for (float& v : x) sum += v = std::exp(v - highest);
  for (float& v : x) v /= sum;
}

// The `count` largest, the largest first, of equals the first.
std::vector<int64_t> largest(const Scores& scores, int64_t count) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(
      order, [&](int64_t a, int64_t b) { return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(count));
  return order;
}

// Experts outside the best groups cannot be chosen: their scores become `none`.
void keep_best_groups(const Moe& moe, Scores& scores, float none) {
  const int64_t size = moe.experts / moe.groups;
  Scores of_groups;
  for (int64_t g = 0; g < moe.groups; ++g) {
    Scores group(scores.begin() + g * size, scores.begin() + (g + 1) * size);
    std::ranges::sort(group, std::greater{});
    of_groups.push_back(moe.corrected && size > 1 ? group[0] + group[1] : group[0]);
  }
  std::vector<bool> kept(static_cast<size_t>(moe.groups));
  for (const int64_t g : largest(of_groups, moe.groups_kept)) kept[static_cast<size_t>(g)] = true;
  for (size_t e = 0; e < scores.size(); ++e)
    if (!kept[e / static_cast<size_t>(size)]) scores[e] = none;
}

struct Choice {
  std::vector<int64_t> experts;
  Scores weights;
};

Choice choose_best(const Moe& moe, Scores scores, std::span<const float> correction) {
  if (moe.score == Moe::Score::softmax) softmax(scores);
  if (moe.score == Moe::Score::sigmoid)
    for (float& x : scores) x = 1 / (1 + std::exp(-x));
  Scores by = scores;
  for (size_t e = 0; e < correction.size(); ++e) by[e] += correction[e];
  if (moe.groups > 1) keep_best_groups(moe, by, 0);
  Choice out{largest(by, moe.per_token), {}};
  for (const int64_t e : out.experts) out.weights.push_back(scores[static_cast<size_t>(e)]);
  if (moe.score == Moe::Score::chosen_softmax) softmax(out.weights);
  return out;
}

// Source: Phi-3.5-MoE's sparse mixer, as it is evaluated.
Choice choose_sparsely(const Moe& moe, const Scores& scores) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  Choice out;
  Scores left = scores;
  for (int64_t i = 0; i < moe.per_token; ++i) {
    const auto best = std::ranges::max_element(left);
    const float highest = *best;
    const auto chosen = best - left.begin();
    float sum = 0;
    for (size_t e = 0; e < scores.size(); ++e) {
      const float distance = (highest - scores[e]) / std::max(std::abs(scores[e]), highest);
      if (left[e] != kNone && !(distance > moe.near)) sum += std::exp(left[e] - highest);
    }
    out.experts.push_back(chosen);
    out.weights.push_back(1 / sum);
    left[static_cast<size_t>(chosen)] = kNone;
  }
  return out;
}

}  // namespace

std::vector<std::vector<Visit>> route(const Moe& moe, MatrixView logits, std::span<const float> correction) {
  std::vector<std::vector<Visit>> visits(static_cast<size_t>(moe.experts));
  for (int64_t t = 0; t < logits.rows; ++t) {
    const Scores scores(logits.row(t), logits.row(t) + logits.cols);
    Choice choice =
        moe.score == Moe::Score::sparse_mixer ? choose_sparsely(moe, scores) : choose_best(moe, scores, correction);
    float by = 1;
    if (moe.normalized)
      by = std::max(std::accumulate(choice.weights.begin(), choice.weights.end(), 0.0f), moe.smallest_sum);
    for (size_t i = 0; i < choice.experts.size(); ++i)
      visits[static_cast<size_t>(choice.experts[i])].push_back({t, choice.weights[i] / by * moe.scale});
  }
  return visits;
}

}  // namespace pare
