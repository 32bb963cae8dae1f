#include "pare/model/generate.h"

#include <cmath>
#include <limits>
#include <set>

#include "tests/model/models.h"

namespace pare::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

std::vector<double> frequencies(const Sampling& options, const std::vector<float>& logits, int draws = 20000) {
  Sampler sampler(options);
  std::vector<double> out(logits.size());
  for (int i = 0; i < draws; ++i) out[static_cast<size_t>(sampler.pick(logits))] += 1.0 / draws;
  return out;
}

TEST(SamplerTest, GreedyTakesTheFirstHighest) {
  Sampler greedy({});
  EXPECT_EQ(greedy.pick(std::vector<float>{1, 5, 5, 2}), 1);
  EXPECT_EQ(greedy.pick(std::vector<float>{kNan, -3, kNan}), 1);
  EXPECT_EQ(greedy.pick(std::vector<float>{-kInf, 0, kInf}), 2);
  EXPECT_THROW(greedy.pick(std::vector<float>{kNan, kNan}), Error);
}

TEST(SamplerTest, DrawsWithTheProbabilitiesOfTheTemperature) {
  const std::vector<float> logits = {0, 1, -1, 2};
  for (const double temperature : {0.5, 1.0, 2.0}) {
    const auto got = frequencies({.temperature = temperature, .seed = 3}, logits);
    double total = 0;
    for (const float l : logits) total += std::exp(double{l} / temperature);
    for (size_t i = 0; i < logits.size(); ++i)
      EXPECT_NEAR(got[i], std::exp(double{logits[i]} / temperature) / total, 0.015);
  }
}

TEST(SamplerTest, FiltersKeepWhatTheySay) {
  const std::vector<float> logits = {0, 1, -1, 2};  // probabilities 0.087 0.237 0.032 0.644
  const auto kept = [&](const Sampling& options) {
    std::set<size_t> out;
    const auto f = frequencies(options, logits, 3000);
    for (size_t i = 0; i < f.size(); ++i)
      if (f[i] > 0) out.insert(i);
    return out;
  };
  EXPECT_EQ(kept({.temperature = 1, .top_k = 2}), (std::set<size_t>{1, 3}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.6}), (std::set<size_t>{3}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.7}), (std::set<size_t>{1, 3}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.9}), (std::set<size_t>{0, 1, 3}));
  EXPECT_EQ(kept({.temperature = 1, .min_p = 0.1}), (std::set<size_t>{0, 1, 3}));
  EXPECT_EQ(kept({.temperature = 1, .min_p = 0.3}), (std::set<size_t>{1, 3}));
  EXPECT_EQ(kept({.temperature = 5, .top_p = 0.6}), (std::set<size_t>{3}));  // the temperature comes last
}

TEST(SamplerTest, TheSeedDecides) {
  const std::vector<float> logits(1000, 0.0f);
  const auto draw = [&](uint64_t seed) {
    Sampler s({.temperature = 1, .seed = seed});
    std::vector<int32_t> out;
    for (int i = 0; i < 5; ++i) out.push_back(s.pick(logits));
    return out;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
  EXPECT_EQ(draw(0), (std::vector<int32_t>{883, 431, 26, 970, 106}));  // splitmix64's first outputs / 2^64 * 1000
}

TEST(SamplerTest, OptionsOutOfRangeAreUsageErrors) {
  for (const Sampling& bad : {Sampling{.temperature = -1}, Sampling{.temperature = double{kNan}}, Sampling{.top_k = -1},
                              Sampling{.top_p = 0}, Sampling{.top_p = 1.1}, Sampling{.min_p = -0.1}})
    EXPECT_EQ(error_of([&] { Sampler{bad}; }).code, ExitCode::usage);
}

class GenerateTest : public testing::Test {
 protected:
  TemporaryDirectory dir_;
  Decoder model_{stored(llama_like({}), dir_.path())};
  std::vector<int32_t> prompt_ = some_tokens(5, 50);
};

TEST_F(GenerateTest, GreedyEqualsFullRecomputation) {
  const Generated got = generate(model_, prompt_, 12, {}, {});
  auto tokens = prompt_;
  Sampler greedy({});
  for (int i = 0; i < 12; ++i) {
    const Matrix logits = model_.logits(tokens);
    tokens.push_back(greedy.pick({logits.row(logits.rows() - 1), 50}));
  }
  EXPECT_EQ(got.tokens, std::vector<int32_t>(tokens.begin() + 5, tokens.end()));
}

TEST_F(GenerateTest, LongPromptsGoThroughInPieces) {
  const auto prompt = some_tokens(1100, 50);
  const Matrix logits = model_.logits(prompt);
  Sampler greedy({});
  EXPECT_EQ(generate(model_, prompt, 1, {}, {}).tokens.at(0), greedy.pick({logits.row(1099), 50}));
}

TEST_F(GenerateTest, StopsWhereItIsTold) {
  const auto all = generate(model_, prompt_, 12, {}, {}).tokens;
  ASSERT_EQ(all.size(), 12u);
  const std::vector<int32_t> stop = {all[7]};
  const auto first = static_cast<size_t>(std::find(all.begin(), all.end(), all[7]) - all.begin());
  EXPECT_EQ(generate(model_, prompt_, 12, {}, stop).tokens.size(), first);
  int calls = 0;
  EXPECT_EQ(generate(model_, prompt_, 12, {}, {}, [&](int32_t) { return ++calls < 3; }).tokens.size(), 3u);
  EXPECT_TRUE(generate(model_, prompt_, 0, {}, {}).tokens.empty());
  EXPECT_THROW(generate(model_, {}, 3, {}, {}), Error);
}

TEST_F(GenerateTest, LearnedPositionsEnd) {
  const Decoder gpt2(stored(gpt2_like(), dir_ / "gpt2"));  // 24 positions
  EXPECT_EQ(generate(gpt2, prompt_, 100, {}, {}).tokens.size(), 19u);
  EXPECT_THROW(generate(gpt2, some_tokens(25, 50), 1, {}, {}), Error);
}

}  // namespace
}  // namespace pare::test
