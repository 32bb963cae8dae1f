// Perplexity on the demo model and on made-up numbers: windows, losses, errors, refusals.
#include "pare/eval/perplexity.h"

#include <gmock/gmock.h>

#include <cmath>
#include <csignal>
#include <random>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/base/threads.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

using Protocol = PerplexityProtocol;

PerplexityOptions how(Protocol protocol, int64_t context, int64_t stride = 0) {
  return resolved({.protocol = protocol, .context = context, .stride = stride}, 0);
}

// ---- windows

TEST(PerplexityWindows, HfWithOverlapScoresEveryTokenButTheFirstOnce) {
  for (const int64_t count : {2, 3, 7, 16, 17, 64, 65, 100})
    for (const int64_t context : {2, 5, 16})
      for (int64_t stride = 1; stride < context; ++stride) {
        std::vector<int> scored(static_cast<size_t>(count));
        for (const ScoredWindow& w : scored_windows(how(Protocol::hf, context, stride), count)) {
          EXPECT_LE(w.end - w.begin, context);
          EXPECT_GT(w.first_scored, w.begin);  // something stands before what is predicted
          for (int64_t i = w.first_scored; i < w.end; ++i) ++scored[static_cast<size_t>(i)];
        }
        std::vector<int> expected(static_cast<size_t>(count), 1);
        expected[0] = 0;
        EXPECT_EQ(scored, expected) << count << " tokens, context " << context << ", stride " << stride;
      }
}

TEST(PerplexityWindows, HfSideBySideNeverScoresTheFirstTokenOfAWindow) {
  const auto windows = scored_windows(how(Protocol::hf, 4), 10);
  EXPECT_EQ(windows, (std::vector<ScoredWindow>{{0, 4, 1}, {4, 8, 5}, {8, 10, 9}}));
  EXPECT_EQ(scored_windows(how(Protocol::hf, 4), 9).size(), 2u);  // a lone last token predicts nothing
}

TEST(PerplexityWindows, HfStopsAtTheWindowThatReachesTheEnd) {
  const auto windows = scored_windows(how(Protocol::hf, 4, 2), 8);
  EXPECT_EQ(windows, (std::vector<ScoredWindow>{{0, 4, 1}, {2, 6, 4}, {4, 8, 6}}));
}

TEST(PerplexityWindows, GptqDropsTheTail) {
  EXPECT_EQ(scored_windows(how(Protocol::gptq, 4), 11), (std::vector<ScoredWindow>{{0, 4, 1}, {4, 8, 5}}));
}

TEST(PerplexityWindows, LlamaCppScoresSecondHalves) {
  const auto windows = scored_windows(how(Protocol::llama_cpp, 512), 512 * 3 + 100);
  ASSERT_EQ(windows.size(), 3u);
  for (const ScoredWindow& w : windows) EXPECT_EQ(w.end - w.first_scored, 255);
  const auto odd = scored_windows(how(Protocol::llama_cpp, 7), 14);
  EXPECT_EQ(odd, (std::vector<ScoredWindow>{{0, 7, 4}, {7, 14, 11}}));  // n - 1 - n/2 = 3
}

TEST(PerplexityWindows, DefaultsStayWithinTheModel) {
  EXPECT_EQ(resolved({}, 8192).context, 2048);
  EXPECT_EQ(resolved({}, 512).context, 512);
  EXPECT_EQ(resolved({.protocol = Protocol::llama_cpp}, 8192).context, 512);
  EXPECT_EQ(resolved({.protocol = Protocol::llama_cpp}, 128).context, 128);
  EXPECT_EQ(resolved({.context = 64}, 512).stride, 64);
}

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(PerplexityWindows, ShortTextsAndBadOptionsAreRefused) {
  EXPECT_THAT(error_of([] { scored_windows(how(Protocol::hf, 8), 1); }), testing::HasSubstr("at least 2 tokens"));
  EXPECT_THAT(error_of([] { scored_windows(how(Protocol::gptq, 8), 7); }), testing::HasSubstr("at least 8 tokens"));
  EXPECT_THAT(error_of([] { scored_windows(how(Protocol::llama_cpp, 8), 15); }),
              testing::HasSubstr("at least 16 tokens, got 15"));
  EXPECT_THAT(error_of([] { scored_windows(how(Protocol::hf, 8, 9), 100); }), testing::HasSubstr("stride"));
  EXPECT_THAT(error_of([] { scored_windows(how(Protocol::hf, 1), 100); }), testing::HasSubstr("context"));
  EXPECT_THAT(error_of([] { scored_windows(how(Protocol::gptq, 8, 4), 100); }), testing::HasSubstr("no stride"));
}

// ---- numbers

TEST(NegativeLogLikelihood, IsMinusTheLogOfTheSoftmax) {
  const std::vector<float> logits = {0, 1, 2};
  EXPECT_NEAR(negative_log_likelihood(logits, 2), std::log(1 + std::exp(-1.0) + std::exp(-2.0)), 1e-7);
  const std::vector<float> uniform(50000, 7.0f);
  EXPECT_NEAR(negative_log_likelihood(uniform, 123), std::log(50000.0), 1e-12);
  const std::vector<float> huge = {-3e38f, 3e38f};
  EXPECT_EQ(negative_log_likelihood(huge, 1), 0);
  EXPECT_TRUE(std::isnan(negative_log_likelihood(std::vector<float>{NAN, NAN}, 0)));
}

// Values with autocorrelation rho: the error of their mean is sqrt((1 + rho) / (1 - rho)) times that of independent
// ones.
std::vector<double> correlated(size_t count, double rho, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> out(count);
  double x = normal(random);
  for (double& value : out) value = x = rho * x + std::sqrt(1 - rho * rho) * normal(random);
  return out;
}

TEST(StandardError, BatchMeansSeeCorrelationAndIndependentErrorsDoNot) {
  constexpr int kTrials = 50;
  constexpr size_t kCount = 20000;
  double batches = 0, independent = 0;
  for (int t = 0; t < kTrials; ++t) {
    const auto values = correlated(kCount, 0.8, static_cast<unsigned>(t));
    batches += batch_means_error(values, 512) / kTrials;
    independent += independent_error(values) / kTrials;
  }
  const double truth = std::sqrt((1 + 0.8) / (1 - 0.8) / kCount);  // 3 / sqrt(count)
  EXPECT_NEAR(batches / truth, 1, 0.1);
  EXPECT_NEAR(independent / truth, 1.0 / 3, 0.03);
}

TEST(StandardError, OfFewValues) {
  EXPECT_TRUE(std::isnan(batch_means_error(std::vector<double>{3}, 512)));
  const std::vector<double> two = {1, 3};
  EXPECT_DOUBLE_EQ(batch_means_error(two, 512), 1);  // sqrt(((-1)² + 1²) · 2 / 1) / 2
  EXPECT_DOUBLE_EQ(independent_error(two), 1);       // sqrt((5 - 4) / 1)
  // Short texts fall back to batches of one value: the independent formula.
  const auto values = correlated(39, 0, 1);
  EXPECT_NEAR(batch_means_error(values, 512), independent_error(values), 1e-12);
}

// ---- with the demo model

class DemoPerplexity : public testing::Test {
 protected:
  DemoPerplexity() : model_(Checkpoint::open(test::demo_model())) {
    std::mt19937 random(7);
    for (int i = 0; i < 100; ++i) tokens_.push_back(static_cast<int32_t>(random() % 4096));
  }
  // Sum of -log p of targets [first, end), the model having read the tokens from `begin` on.
  double losses(const std::vector<int32_t>& tokens, int64_t begin, int64_t first, int64_t end) const {
    const Matrix logits = model_.logits(std::vector<int32_t>(tokens.begin() + begin, tokens.begin() + end));
    double total = 0;
    for (int64_t i = first; i < end; ++i) {
      const float* row = logits.row(i - 1 - begin);
      double sum = 0;
      for (int64_t v = 0; v < logits.cols(); ++v) sum += std::exp(static_cast<double>(row[v]));
      total += std::log(sum) - static_cast<double>(row[tokens[static_cast<size_t>(i)]]);
    }
    return total;
  }
  Decoder model_;
  std::vector<int32_t> tokens_;
};

TEST_F(DemoPerplexity, HfIsTheMeanLossOfEveryScoredToken) {
  const auto p = perplexity(model_, tokens_, std::nullopt, how(Protocol::hf, 16, 12));
  double sum = losses(tokens_, 0, 1, 16);
  for (int64_t begin = 12; begin + 4 < 100; begin += 12)
    sum += losses(tokens_, begin, begin + 4, std::min<int64_t>(begin + 16, 100));
  EXPECT_EQ(p.tokens, 99);
  EXPECT_EQ(p.windows, 8);
  EXPECT_NEAR(p.perplexity / std::exp(sum / 99), 1, 1e-4);
}

TEST_F(DemoPerplexity, LlamaCppPutsBosInFrontOfEveryWindow) {
  const auto p = perplexity(model_, tokens_, 4094, how(Protocol::llama_cpp, 16));
  std::vector<int32_t> with_bos = tokens_;
  double sum = 0;
  for (int64_t begin = 0; begin + 16 <= 100; begin += 16) {
    with_bos[static_cast<size_t>(begin)] = 4094;
    sum += losses(with_bos, begin, begin + 9, begin + 16);
  }
  EXPECT_EQ(p.tokens, 6 * 7);
  EXPECT_NEAR(p.perplexity / std::exp(sum / (6 * 7)), 1, 1e-4);
  EXPECT_NE(p.perplexity, perplexity(model_, tokens_, std::nullopt, how(Protocol::llama_cpp, 16)).perplexity);
}

TEST_F(DemoPerplexity, BlocksOfLogitsAndThreadsChangeNothing) {
  const auto whole = perplexity(model_, tokens_, std::nullopt, how(Protocol::hf, 64));
  auto options = how(Protocol::hf, 64);
  options.logit_bytes = 1;  // 16 rows at a time: 63 scored rows are no multiple
  const auto blocks = perplexity(model_, tokens_, std::nullopt, options);
  EXPECT_EQ(whole.tokens, blocks.tokens);
  EXPECT_NEAR(whole.perplexity / blocks.perplexity, 1, 1e-6);
  set_threads(1);
  EXPECT_EQ(perplexity(model_, tokens_, std::nullopt, options).perplexity, blocks.perplexity);
  set_threads(0);
}

TEST_F(DemoPerplexity, MaxTokensTakesTheBeginning) {
  auto options = how(Protocol::hf, 16);
  options.max_tokens = 40;
  const auto p = perplexity(model_, tokens_, std::nullopt, options);
  const auto cut = perplexity(model_, std::span(tokens_).first(40), std::nullopt, how(Protocol::hf, 16));
  EXPECT_EQ(p.perplexity, cut.perplexity);
  EXPECT_EQ(p.windows, 3);
}

TEST_F(DemoPerplexity, SaysHowFarItIs) {
  std::vector<Progress> seen;
  const auto p = perplexity(model_, tokens_, std::nullopt, how(Protocol::gptq, 25),
                            {.progress = [&](const Progress& at) { seen.push_back(at); }, .warning = {}});
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_EQ(seen.back().done, 4);
  EXPECT_EQ(seen.back().total, 4);
  EXPECT_NEAR(seen.back().error / p.perplexity, 1, 1e-12);
}

TEST_F(DemoPerplexity, WarnsOfAContextTheModelIsNotMadeFor) {
  std::vector<std::string> warnings;
  const Observer observer{.progress = {}, .warning = [&](const std::string& text) { warnings.push_back(text); }};
  perplexity(model_, tokens_, std::nullopt, how(Protocol::hf, 513), observer);
  EXPECT_THAT(warnings, testing::ElementsAre(testing::HasSubstr("longer than the 512")));
}

TEST_F(DemoPerplexity, RefusesTokensOfAnotherVocabulary) {
  tokens_[33] = 4096;
  EXPECT_THAT(error_of([&] { perplexity(model_, tokens_, std::nullopt, how(Protocol::hf, 16)); }),
              testing::AllOf(testing::HasSubstr("token 33"), testing::HasSubstr("4096")));
}

TEST_F(DemoPerplexity, StopsWhenInterrupted) {
  catch_interrupts();
  std::raise(SIGINT);
  try {
    perplexity(model_, tokens_, std::nullopt, how(Protocol::hf, 16));
    FAIL() << "went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::interrupted);
  }
  clear_interrupt();
}

}  // namespace
}  // namespace pare
