#include "pare/model/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "pare/base/error.h"

namespace pare {
namespace {

struct Candidate {
  int32_t id;
  float logit;
  double probability;
};

// Higher logits first; among equals the lower id, so that the order never depends on the sort.
bool before(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

std::vector<Candidate> possible(std::span<const float> logits) {
  std::vector<Candidate> out;
  out.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > -std::numeric_limits<float>::infinity())
      out.push_back({static_cast<int32_t>(i), std::min(logits[i], std::numeric_limits<float>::max()), 0});
  if (out.empty())
    throw Error({.what = "the model gives no token any probability",
                 .expected = "numbers as logits",
                 .got = "NaN",
                 .remedy = "the weights are damaged, or too coarsely quantized"});
  return out;
}

// Probabilities of what is left, at a temperature.
void soften(std::vector<Candidate>& candidates, double temperature) {
  double sum = 0;
  for (Candidate& c : candidates)
    sum += c.probability =
        std::exp((static_cast<double>(c.logit) - static_cast<double>(candidates.front().logit)) / temperature);
  for (Candidate& c : candidates) c.probability /= sum;
}

void keep_top_k(std::vector<Candidate>& candidates, int k) {
  if (k > 0 && static_cast<size_t>(k) < candidates.size()) {
    std::partial_sort(candidates.begin(), candidates.begin() + k, candidates.end(), before);
    candidates.resize(static_cast<size_t>(k));
  } else {
    std::sort(candidates.begin(), candidates.end(), before);
  }
}

// The fewest most probable tokens that together have probability p.
void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  soften(candidates, 1);
  double sum = 0;
  size_t count = 0;
  while (count < candidates.size() && (count == 0 || sum < p)) sum += candidates[count++].probability;
  candidates.resize(count);
}

// Those at least p times as probable as the most probable.
void keep_min_p(std::vector<Candidate>& candidates, double p) {
  if (p <= 0) return;
  const double lowest = static_cast<double>(candidates.front().logit) + std::log(p);
  const auto end = std::find_if(candidates.begin() + 1, candidates.end(),
                                [&](const Candidate& c) { return static_cast<double>(c.logit) < lowest; });
  candidates.erase(end, candidates.end());
}

void require(bool good, const char* option, const char* expected, double got) {
  if (good) return;
  throw Error({.what = "a sampling option is out of range",
               .where = option,
               .expected = expected,
               .got = fmt::format("{}", got),
               .code = ExitCode::usage});
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Logits of the prompt's last token. Under dynamic rope scaling the rotation depends on the piece, so there is one.
Matrix prefill(const Decoder& model, std::span<const int32_t> prompt, KvCache& cache) {
  constexpr size_t kPiece = 512;
  const bool whole = model.config().rope.kind == Rope::Kind::dynamic;
  while (!whole && prompt.size() > kPiece) {
    model.forward(prompt.first(kPiece), cache, false);
    prompt = prompt.subspan(kPiece);
  }
  return model.forward(prompt, cache, false);
}

}  // namespace

Sampler::Sampler(const Sampling& options) : options_(options), state_(options.seed) {
  require(std::isfinite(options.temperature) && options.temperature >= 0, "--temperature", "0 or more",
          options.temperature);
  require(options.top_k >= 0, "--top-k", "0 or more", options.top_k);
  require(options.top_p > 0 && options.top_p <= 1, "--top-p", "above 0, at most 1", options.top_p);
  require(options.min_p >= 0 && options.min_p <= 1, "--min-p", "0 to 1", options.min_p);
}

// splitmix64 (Steele, Lea, Flood 2014); 53 bits make a double.
double Sampler::next_uniform() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int32_t Sampler::pick(std::span<const float> logits) {
  std::vector<Candidate> candidates = possible(logits);
  if (options_.temperature == 0) return std::min_element(candidates.begin(), candidates.end(), before)->id;
  keep_top_k(candidates, options_.top_k);
  keep_top_p(candidates, options_.top_p);
  keep_min_p(candidates, options_.min_p);
  soften(candidates, options_.temperature);
  double left = next_uniform();
  for (const Candidate& c : candidates)
    if ((left -= c.probability) < 0) return c.id;
  return candidates.back().id;
}

Generated generate(const Decoder& model, std::span<const int32_t> prompt, int count, const Sampling& sampling,
                   std::span<const int32_t> stop, const std::function<bool(int32_t)>& on_token) {
  if (prompt.empty())
    throw Error({.what = "there is nothing to continue", .expected = "at least one token", .got = "an empty prompt"});
  Sampler sampler(sampling);
  const auto length = static_cast<int64_t>(prompt.size());
  const int64_t wanted = std::clamp<int64_t>(model.max_length() - length, 0, std::max(count, 0));
  KvCache cache(model.config(), length + wanted);
  Generated out;
  auto start = std::chrono::steady_clock::now();
  Matrix logits = prefill(model, prompt, cache);
  out.prefill_seconds = seconds_since(start);

  start = std::chrono::steady_clock::now();
  while (static_cast<int64_t>(out.tokens.size()) < wanted) {
    const int32_t token = sampler.pick(logits.values());
    if (std::find(stop.begin(), stop.end(), token) != stop.end()) break;
    out.tokens.push_back(token);
    if (on_token && !on_token(token)) break;
    if (static_cast<int64_t>(out.tokens.size()) < wanted) logits = model.forward({&token, 1}, cache, false);
  }
  out.decode_seconds = seconds_since(start);
  return out;
}

}  // namespace pare
