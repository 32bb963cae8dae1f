#include "pare/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "pare/base/threads.h"

namespace pare {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

std::vector<double> plain_frequencies(double theta, int64_t dims) {
  std::vector<double> out(static_cast<size_t>(dims / 2));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = 1.0 / std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(dims));
  return out;
}

// Beyond the original context the base grows with the sequence ("NTK-aware").
double dynamic_theta(const Rope& r, int64_t length) {
  if (length <= r.original_context) return r.theta;
  const double stretch =
      r.factor * static_cast<double>(length) / static_cast<double>(r.original_context) - (r.factor - 1);
  return r.theta * std::pow(stretch, static_cast<double>(r.dims) / static_cast<double>(r.dims - 2));
}

// Fast dimensions keep their frequency, slow ones are interpolated, with a ramp between the dimensions that turn
// beta_fast and beta_slow times within the original context.
void apply_yarn(const Rope& r, std::vector<double>& frequencies) {
  const double dims = static_cast<double>(r.dims);
  const auto dimension_turning = [&](double turns) {
    return dims * std::log(static_cast<double>(r.original_context) / (turns * kTwoPi)) / (2 * std::log(r.theta));
  };
  double low = dimension_turning(r.beta_fast), high = dimension_turning(r.beta_slow);
  if (r.truncated) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, dims - 1);
  if (high == low) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double slow = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / r.factor * slow + frequencies[i] * (1 - slow);
  }
}

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

double yarn_scale(const Rope& r) {
  if (r.attention_factor > 0) return r.attention_factor;
  if (r.mscale && r.mscale_all_dim && *r.mscale != 0 && *r.mscale_all_dim != 0)
    return yarn_mscale(r.factor, *r.mscale) / yarn_mscale(r.factor, *r.mscale_all_dim);
  return yarn_mscale(r.factor, 1);
}

}  // namespace

double longrope_scale(const Rope& r) {
  if (r.attention_factor > 0) return r.attention_factor;
  return r.factor <= 1 ? 1 : std::sqrt(1 + std::log(r.factor) / std::log(static_cast<double>(r.original_context)));
}

float latent_score_scale(const Rope& r) {
  if (r.kind != Rope::Kind::yarn || !r.mscale_all_dim || *r.mscale_all_dim == 0) return 1;
  const double scale = yarn_mscale(r.factor, *r.mscale_all_dim);
  return static_cast<float>(scale * scale);
}

std::vector<float> llama3_factors(const Rope& r) {
  const float context = static_cast<float>(r.original_context), low = static_cast<float>(r.low_freq_factor),
              high = static_cast<float>(r.high_freq_factor), factor = static_cast<float>(r.factor);
  std::vector<float> out;
  for (const double frequency : plain_frequencies(r.theta, r.dims)) {
    const float wavelength = static_cast<float>(kTwoPi) / static_cast<float>(frequency);
    const float smooth = (context / wavelength - low) / (high - low);
    if (wavelength < context / high)
      out.push_back(1);
    else if (wavelength > context / low)
      out.push_back(factor);
    else
      out.push_back(1 / ((1 - smooth) / factor + smooth));
  }
  return out;
}

Frequencies rope_frequencies(const Rope& r, int64_t length) {
  const bool dynamic = r.kind == Rope::Kind::dynamic;
  std::vector<double> frequencies = plain_frequencies(dynamic ? dynamic_theta(r, length) : r.theta, r.dims);
  Frequencies out;
  const bool longrope = r.kind == Rope::Kind::longrope;
  const std::vector<float> factors = r.kind == Rope::Kind::llama3  ? llama3_factors(r)
                                     : !longrope                   ? r.frequency_factors
                                     : length > r.original_context ? r.long_factors
                                                                   : r.short_factors;
  if (longrope) out.scale = static_cast<float>(longrope_scale(r));
  for (size_t i = 0; i < factors.size(); ++i) frequencies[i] /= static_cast<double>(factors[i]);
  if (r.kind == Rope::Kind::linear)
    for (double& f : frequencies) f /= r.factor;
  if (r.kind == Rope::Kind::yarn) {
    apply_yarn(r, frequencies);
    out.scale = static_cast<float>(yarn_scale(r));
  }
  out.inverse.assign(frequencies.begin(), frequencies.end());
  return out;
}

void rotate(const Rope& rope, const Frequencies& frequencies, float* x, int64_t tokens, int64_t heads, int64_t head_dim,
            int64_t stride, int64_t first) {
  const int64_t pairs = rope.dims / 2;
  const int64_t step = rope.interleaved ? 2 : 1, partner = rope.interleaved ? 1 : pairs;
  const int64_t rows = std::max<int64_t>(1, 4096 / (heads * head_dim));
  parallel_for((tokens + rows - 1) / rows, [&](int64_t tile) {
    std::vector<float> cosine(static_cast<size_t>(pairs)), sine(cosine.size());
    for (int64_t t = tile * rows; t < std::min(tokens, (tile + 1) * rows); ++t) {
      const float position = static_cast<float>(first + t);
      for (size_t i = 0; i < cosine.size(); ++i) {
        const float angle = position * frequencies.inverse[i];  // in f32, as the models were trained
        cosine[i] = std::cos(angle) * frequencies.scale;
        sine[i] = std::sin(angle) * frequencies.scale;
      }
      for (int64_t h = 0; h < heads; ++h) {
        float* head = x + t * stride + h * head_dim;
        for (int64_t i = 0; i < pairs; ++i) {
          float &a = head[i * step], &b = head[i * step + partner];
          const float c = cosine[static_cast<size_t>(i)], s = sine[static_cast<size_t>(i)], a0 = a, b0 = b;
          a = a0 * c - b0 * s;
          b = b0 * c + a0 * s;
        }
      }
    }
  });
}

}  // namespace pare
