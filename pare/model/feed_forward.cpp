#include "pare/model/feed_forward.h"

#include <algorithm>
#include <cmath>

#include "pare/model/elementwise.h"

namespace pare {
namespace {

using Linears = std::map<Role, LinearLayer>;

struct Roles {
  Role gate, up, gate_up;
};
constexpr Roles kDense{Role::gate, Role::up, Role::gate_up}, kShared{Role::shared_gate, Role::shared_up, Role::gate_up},
    kExpert{Role::expert_gate, Role::expert_up, Role::expert_gate_up};

// Columns of gate and up from one projection, halves or in turns.
Matrix columns_of(const Matrix& both, int64_t first, int64_t step) {
  Matrix out(both.rows(), both.cols() / 2);
  for (int64_t r = 0; r < out.rows(); ++r)
    for (int64_t c = 0; c < out.cols(); ++c) out(r, c) = both(r, first + c * step);
  return out;
}

// gate sigmoid(alpha gate) (up + 1) of limited gate and up. Source: gpt-oss.
void gate_with_limit(const ClampedGate& g, Matrix& gate, const Matrix& up) {
  for (int64_t i = 0; i < gate.size(); ++i) {
    const float x = std::min(gate.data()[i], g.limit), y = std::clamp(up.data()[i], -g.limit, g.limit);
    gate.data()[i] = x / (1 + std::exp(-g.alpha * x)) * (y + 1);
  }
}

float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

// Source: Huang and Schlag 2024 (arXiv 2411.13010). The four vectors hold one number each.
void activate_xielu(const std::map<Role, NormWeights>& parameters, Matrix& x) {
  const auto value = [&](Role role) { return parameters.at(role).weight.at(0); };
  const float beta = value(Role::xielu_beta), least = value(Role::xielu_eps);
  const float rising = softplus(value(Role::xielu_alpha_p)), falling = beta + softplus(value(Role::xielu_alpha_n));
  for (float& v : x.values())
    v = v > 0 ? rising * v * v + beta * v : (std::expm1(std::min(v, least)) - v) * falling + beta * v;
}

Matrix inner_of(const Config& config, const LayerWeights& layer, const Linears& linears, const Roles& roles,
                MatrixView input) {
  Matrix gate, up;
  if (const auto fused = linears.find(roles.gate_up); fused != linears.end() && !linears.contains(roles.up)) {
    const Matrix both = fused->second.apply(input);
    const bool in_turns = config.clamped_gate.has_value();
    gate = columns_of(both, 0, in_turns ? 2 : 1);
    up = columns_of(both, in_turns ? 1 : both.cols() / 2, in_turns ? 2 : 1);
  } else {
    up = linears.at(roles.up).apply(input);
    if (config.gated) gate = linears.at(roles.gate).apply(input);
  }
  if (config.clamped_gate) {
    gate_with_limit(*config.clamped_gate, gate, up);
    return gate;
  }
  if (config.activation == Activation::xielu) {
    activate_xielu(layer.norms, up);
    return up;
  }
  if (!config.gated) {
    activate(config.activation, up.data(), nullptr, up.rows(), up.cols());
    return up;
  }
  activate(config.activation, gate.data(), up.data(), gate.rows(), gate.cols());
  return gate;
}

}  // namespace

Matrix dense_inner(const Config& config, const LayerWeights& layer, MatrixView input) {
  return inner_of(config, layer, layer.linears, kDense, input);
}
Matrix shared_inner(const Config& config, const LayerWeights& layer, MatrixView input) {
  return inner_of(config, layer, layer.linears, kShared, input);
}
Matrix expert_inner(const Config& config, const LayerWeights& layer, size_t expert, MatrixView input) {
  return inner_of(config, layer, layer.experts.at(expert), kExpert, input);
}

std::vector<std::vector<Visit>> visits_of(const Config& config, const LayerWeights& layer, const Matrix& input) {
  const auto correction = layer.norms.find(Role::router_correction);
  return route(*config.moe, layer.linears.at(Role::router).apply(input),
               correction == layer.norms.end() ? std::span<const float>() : correction->second.weight);
}

Matrix visitors(const Config& config, const Matrix& input, const std::vector<Visit>& visits) {
  Matrix out(std::ssize(visits), input.cols());
  for (size_t i = 0; i < visits.size(); ++i) {
    const float weight = config.moe->weighs_input ? visits[i].weight : 1;
    std::transform(input.row(visits[i].token), input.row(visits[i].token) + input.cols(),
                   out.row(static_cast<int64_t>(i)), [=](float x) { return weight * x; });
  }
  return out;
}

// Experts in turn, so that sums have one order.
Matrix mixture(const Config& config, const LayerWeights& layer, const Matrix& input) {
  Matrix out(input.rows(), config.hidden);
  const auto visits = visits_of(config, layer, input);
  for (size_t e = 0; e < visits.size(); ++e) {
    if (visits[e].empty()) continue;
    const Matrix inner = expert_inner(config, layer, e, visitors(config, input, visits[e]));
    const Matrix y = layer.experts[e].at(Role::expert_down).apply(inner);
    for (size_t i = 0; i < visits[e].size(); ++i) {
      const float weight = config.moe->weighs_input ? 1 : visits[e][i].weight;
      float* to = out.row(visits[e][i].token);
      const float* from = y.row(static_cast<int64_t>(i));
      for (int64_t c = 0; c < out.cols(); ++c) to[c] += weight * from[c];
    }
  }
  if (config.moe->shared_ffn == 0) return out;
  Matrix shared = layer.linears.at(Role::shared_down).apply(shared_inner(config, layer, input));
  if (config.moe->shared_gate) {
    const Matrix gate = layer.linears.at(Role::shared_router).apply(input);
    for (int64_t r = 0; r < shared.rows(); ++r)
      for (int64_t c = 0; c < shared.cols(); ++c) shared(r, c) *= 1 / (1 + std::exp(-gate(r, 0)));
  }
  add_rows(shared, out);
  return out;
}

}  // namespace pare
