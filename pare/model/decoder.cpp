#include "pare/model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/model/attention.h"
#include "pare/model/elementwise.h"
#include "pare/model/feed_forward.h"
#include "pare/model/rope.h"
#include "pare/model/weights.h"

namespace pare {

KvCache::KvCache(const Config& config, int64_t capacity) : capacity_(capacity) {
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    keys_.emplace_back(capacity, config.key_width());
    values_.emplace_back(capacity, config.value_width());
  }
}

int64_t KvCache::bytes() const {
  int64_t floats = 0;
  for (const Matrix& m : keys_) floats += m.size();
  for (const Matrix& m : values_) floats += m.size();
  return floats * static_cast<int64_t>(sizeof(float));
}

void KvCache::truncate(int64_t length) {
  assert(length >= 0 && length <= length_);
  length_ = length;
}

namespace {

// Where keys and values of earlier tokens lie; null pointers: there are none, nor are new ones kept.
struct Past {
  Matrix *keys = nullptr, *values = nullptr;
  int64_t length = 0;
};

struct Projected {
  std::vector<Matrix> owned;  // q, k, v or all of them side by side
  float *q = nullptr, *k = nullptr, *v = nullptr;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
};

// The heads of a fused projection, in units of head_dim columns, in the order: all of q, all of k, all of v.
std::vector<int64_t> fused_heads(const Config& c) {
  const int64_t heads = c.heads, kv = c.kv_heads, group = heads / kv;
  std::vector<int64_t> q, k, v;
  switch (c.qkv) {
    case QkvLayout::parts:
      break;
    case QkvLayout::by_head:
    case QkvLayout::by_kv_head:
      for (int64_t g = 0; g < kv; ++g) {
        const int64_t first = g * (group + 2);
        for (int64_t i = 0; i < group; ++i) q.push_back(first + i);
        k.push_back(first + group);
        v.push_back(first + group + 1);
      }
      break;
    case QkvLayout::four_shards:
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t each = heads / 4, first = h / each * 3 * each + h % each;
        q.push_back(first);
        v.push_back(first + each);
        k.push_back(first + 2 * each);
      }
      break;
  }
  q.insert(q.end(), k.begin(), k.end());
  q.insert(q.end(), v.begin(), v.end());
  return q;
}

// Moves the heads of every row: head i of the result is head order[i] of x.
Matrix take_heads(const Matrix& x, const std::vector<int64_t>& order, int64_t width) {
  Matrix out(x.rows(), x.cols());
  for (int64_t r = 0; r < x.rows(); ++r)
    for (size_t h = 0; h < order.size(); ++h)
      std::copy_n(x.row(r) + order[h] * width, width, out.row(r) + static_cast<int64_t>(h) * width);
  return out;
}

void copy_rows(MatrixView from, Matrix& to, int64_t first) {
  for (int64_t r = 0; r < from.rows; ++r) std::copy_n(from.row(r), from.cols, to.row(first + r));
}

enum class Half : uint8_t { attention, feed_forward };
Role norm_before(Half half) { return half == Half::attention ? Role::attn_norm : Role::ffn_norm; }
Role norm_after(Half half) { return half == Half::attention ? Role::attn_post_norm : Role::ffn_post_norm; }

}  // namespace

struct Decoder::Impl {
  explicit Impl(std::shared_ptr<const Checkpoint> from)
      : checkpoint(std::move(from)),
        config(read_config(*checkpoint)),
        arch(find_arch(config.architecture)),
        weights(checkpoint, config, arch) {
    if (config.position == PositionKind::alibi) slopes = alibi_slopes(config);
  }

  std::shared_ptr<const Checkpoint> checkpoint;
  Config config;
  const Arch& arch;
  DecoderWeights weights;
  std::vector<float> slopes;  // of linear position biases, one per head

  const LayerWeights& layer(int index) const { return weights.layers.at(static_cast<size_t>(index)); }
  const LinearLayer& linear(int index, Role role) const { return layer(index).linears.at(role); }

  // ---- the forward pass, from the outside in
  Matrix embed(std::span<const int32_t> tokens, int64_t first) const;
  void attention(int index, Matrix& hidden, const Past& past) const;
  void feed_forward(int index, Matrix& hidden) const;
  Matrix head(const Matrix& hidden) const;

  Matrix attention_heads(int index, const Matrix& input, const Past& past) const;
  Projected project(int index, const Matrix& input) const;
  Projected project_latent(int index, const Matrix& input, int64_t first) const;
  Matrix q_latent(int index, const Matrix& input) const;
  Matrix kv_latent(int index, const Matrix& down) const;
  void rotate_heads(int index, Projected& p, int64_t tokens, int64_t first) const;
  void soften(const Temperature& t, Projected& p, int64_t tokens, int64_t first) const;
  Matrix normalized(const LayerWeights& of, Role norm, MatrixView x) const;
  // What a block's half reads, and how its output joins the state. Between the halves of a parallel block the state has
  // the block's input in further columns.
  Matrix input_of(int index, Half half, const Matrix& hidden) const;
  void join(int index, Half half, Matrix output, Matrix& hidden) const;
  void check_tokens(std::span<const int32_t> tokens, int64_t first) const;
  LinearLayer& find(const Linear& linear);
};

void Decoder::Impl::check_tokens(std::span<const int32_t> tokens, int64_t first) const {
  for (const int32_t id : tokens)
    if (id < 0 || id >= config.vocab)
      throw Error({.what = "a token id is outside the vocabulary",
                   .expected = fmt::format("0 to {}", config.vocab - 1),
                   .got = std::to_string(id),
                   .remedy = "the tokenizer is of another model"});
  const int64_t length = first + static_cast<int64_t>(tokens.size());
  if (config.position == PositionKind::learned && length > config.context)
    throw Error({.what = "the sequence is longer than the model has positions",
                 .expected = fmt::format("at most {} tokens", config.context),
                 .got = std::to_string(length)});
}

Matrix Decoder::Impl::embed(std::span<const int32_t> tokens, int64_t first) const {
  check_tokens(tokens, first);
  const auto count = static_cast<int64_t>(tokens.size());
  Matrix hidden(count, config.embedding);
  weights.model.linears.at(Role::token_embedding).rows(tokens, hidden);
  scale_by(config.embedding_scale, hidden);
  if (config.embedding_norm) hidden = normalized(weights.model, Role::embedding_norm, hidden);
  if (config.embedding != config.hidden) hidden = weights.model.linears.at(Role::project_in).apply(hidden);
  if (config.position != PositionKind::learned) return hidden;
  std::vector<int32_t> places(tokens.size());
  for (size_t i = 0; i < places.size(); ++i)
    places[i] = static_cast<int32_t>(first + config.position_offset) + static_cast<int32_t>(i);
  Matrix positions(count, config.hidden);
  weights.model.linears.at(Role::position_embedding).rows(places, positions);
  add_rows(positions, hidden);
  return hidden;
}

Matrix Decoder::Impl::normalized(const LayerWeights& of, Role norm, MatrixView x) const {
  static const NormWeights kNone;
  Matrix out(x.rows, x.cols);
  normalize(config.norm, config.norm_eps, config.norm_weights ? of.norms.at(norm) : kNone, x, out.data(), out.cols());
  return out;
}

Matrix Decoder::Impl::input_of(int index, Half half, const Matrix& hidden) const {
  const bool shared = half == Half::feed_forward && config.shared_norm;
  const Role norm = shared ? Role::attn_norm : norm_before(half);
  const MatrixView input = MatrixView(hidden).cols_between(hidden.cols() - config.hidden, hidden.cols());
  const bool plain = config.norm_place == NormPlace::sum || config.norm_place == NormPlace::output;
  return plain ? copy_of(input) : normalized(layer(index), norm, input);
}

void Decoder::Impl::join(int index, Half half, Matrix output, Matrix& hidden) const {
  if (config.norm_place == NormPlace::output || config.norm_place == NormPlace::both)
    output = normalized(layer(index), norm_after(half), output);
  scale_by(config.residual_scale, output);
  if (config.parallel && half == Half::attention) {
    Matrix both(hidden.rows(), 2 * config.hidden);
    for (int64_t r = 0; r < hidden.rows(); ++r) {
      for (int64_t i = 0; i < config.hidden; ++i) both(r, i) = hidden(r, i) + output(r, i);
      std::copy_n(hidden.row(r), config.hidden, both.row(r) + config.hidden);
    }
    hidden = std::move(both);
    return;
  }
  if (config.parallel) hidden = copy_of(MatrixView(hidden).cols_between(0, config.hidden));
  if (config.residual_norm) hidden = input_of(index, half, hidden);
  add_rows(output, hidden);
  if (config.norm_place == NormPlace::sum) hidden = normalized(layer(index), norm_before(half), hidden);
}

Projected Decoder::Impl::project(int index, const Matrix& input) const {
  Projected p;
  if (layer(index).linears.contains(Role::qkv)) {
    p.owned.push_back(linear(index, Role::qkv).apply(input));
    if (config.qkv != QkvLayout::parts) p.owned[0] = take_heads(p.owned[0], fused_heads(config), config.head_dim);
    if (config.qkv_clip > 0) clip(config.qkv_clip, p.owned[0]);
    p.q = p.owned[0].data();
    p.k = p.q + config.q_width();
    p.v = p.k + config.key_width();
    p.q_stride = p.k_stride = p.v_stride = p.owned[0].cols();
    return p;
  }
  for (const Role role : {Role::q, Role::k, Role::v}) {
    p.owned.push_back(linear(index, role).apply(input));
    if (config.qkv_clip > 0) clip(config.qkv_clip, p.owned.back());
  }
  p.q = p.owned[0].data();
  p.k = p.owned[1].data();
  p.v = p.owned[2].data();
  p.q_stride = config.q_width();
  p.k_stride = p.v_stride = config.key_width();
  return p;
}

// Keys and values leave the narrow projection together, head by head; the rotated part of the keys is one for all heads
// and is rotated here with the queries', at the end of each head.
Projected Decoder::Impl::project_latent(int index, const Matrix& input, int64_t first) const {
  const LatentAttention& a = *config.latent;
  const int64_t tokens = input.rows(), heads = config.heads;
  const Matrix down = linear(index, Role::kv_a).apply(input);
  const Matrix both = linear(index, Role::kv_b).apply(kv_latent(index, down));
  Matrix turned = copy_of(MatrixView(down).cols_between(a.kv_rank, down.cols()));
  Projected p;
  p.owned.push_back(a.q_rank > 0 ? linear(index, Role::q_b).apply(q_latent(index, input))
                                 : linear(index, Role::q).apply(input));
  const Frequencies frequencies = rope_frequencies(config.rope, first + tokens);
  rotate(config.rope, frequencies, p.owned[0].data() + a.plain, tokens, heads, config.head_dim, config.q_width(),
         first);
  rotate(config.rope, frequencies, turned.data(), tokens, 1, a.rotated, a.rotated, first);

  Matrix keys(tokens, config.key_width()), values(tokens, config.value_width());
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      const float* from = both.row(t) + h * (a.plain + a.value);
      float* key = std::copy_n(from, a.plain, keys.row(t) + h * config.head_dim);
      std::copy_n(turned.row(t), a.rotated, key);
      std::copy_n(from + a.plain, a.value, values.row(t) + h * a.value);
    }
  p.owned.push_back(std::move(keys));
  p.owned.push_back(std::move(values));
  p.q = p.owned[0].data(), p.k = p.owned[1].data(), p.v = p.owned[2].data();
  p.q_stride = config.q_width(), p.k_stride = config.key_width(), p.v_stride = config.value_width();
  return p;
}

Matrix Decoder::Impl::q_latent(int index, const Matrix& input) const {
  return normalized(layer(index), Role::q_a_norm, linear(index, Role::q_a).apply(input));
}

Matrix Decoder::Impl::kv_latent(int index, const Matrix& down) const {
  return normalized(layer(index), Role::kv_a_norm, MatrixView(down).cols_between(0, config.latent->kv_rank));
}

void Decoder::Impl::rotate_heads(int index, Projected& p, int64_t tokens, int64_t first) const {
  if (config.qk_norm != QkNorm::none) {
    const auto norm = [&](Role role, float* x, int64_t heads, int64_t stride) {
      const bool whole = config.qk_norm == QkNorm::whole;
      normalize_heads(config.norm, config.norm_eps, layer(index).norms.at(role), x, tokens, whole ? 1 : heads,
                      whole ? heads * config.head_dim : config.head_dim, stride);
    };
    norm(Role::q_norm, p.q, config.heads, p.q_stride);
    norm(Role::k_norm, p.k, config.kv_heads, p.k_stride);
  }
  if (!config.rotates(index)) {
    if (config.temperature) soften(*config.temperature, p, tokens, first);
    return;
  }
  const Rope& rope = config.rope_of(index);
  const Frequencies frequencies = rope_frequencies(rope, first + tokens);
  rotate(rope, frequencies, p.q, tokens, config.heads, config.head_dim, p.q_stride, first);
  rotate(rope, frequencies, p.k, tokens, config.kv_heads, config.head_dim, p.k_stride, first);
  if (!config.rotated_norm) return;
  const auto norm = [&](float* x, int64_t heads, int64_t stride) {
    normalize_heads(NormKind::rms, config.norm_eps, {}, x, tokens, heads, config.head_dim, stride);
  };
  norm(p.q, config.heads, p.q_stride);
  norm(p.k, config.kv_heads, p.k_stride);
}

// Scales the queries by their position.
void Decoder::Impl::soften(const Temperature& t, Projected& p, int64_t tokens, int64_t first) const {
  for (int64_t i = 0; i < tokens; ++i) {
    const float floors = std::floor(static_cast<float>(first + i + 1) / t.floor);
    const float scale = std::log1p(floors) * t.scale + 1;
    for (int64_t c = 0; c < config.q_width(); ++c) p.q[i * p.q_stride + c] *= scale;
  }
}

Matrix Decoder::Impl::attention_heads(int index, const Matrix& input, const Past& past) const {
  const int64_t tokens = input.rows(), length = past.length + tokens;
  Projected p = config.latent ? project_latent(index, input, past.length) : project(index, input);
  if (!config.latent) rotate_heads(index, p, tokens, past.length);
  MatrixView keys(p.k, tokens, config.key_width(), p.k_stride), values(p.v, tokens, config.value_width(), p.v_stride);
  if (past.keys) {
    copy_rows(keys, *past.keys, past.length);
    copy_rows(values, *past.values, past.length);
    keys = MatrixView(*past.keys).rows_between(0, length);
    values = MatrixView(*past.values).rows_between(0, length);
  }
  const auto& norms = layer(index).norms;
  const auto sinks = norms.find(Role::sinks);
  const AttentionShape shape{.heads = config.heads,
                             .kv_heads = config.kv_heads,
                             .head_dim = config.head_dim,
                             .value_dim = config.value_dim(),
                             .window = config.window_of(index),
                             .scale = config.attention_scale,
                             .cap = config.attention_cap,
                             .slopes = slopes,
                             .slope_scale = config.alibi_scale,
                             .round_bias = config.alibi_bf16,
                             .chunk = config.rotates(index) ? config.attention_chunk : 0,
                             .sinks = sinks == norms.end() ? std::span<const float>() : sinks->second.weight};
  Matrix out(tokens, config.mixed_width());
  attend(shape, {p.q, tokens, config.q_width(), p.q_stride}, keys, values, past.length, out.data());
  return out;
}

void Decoder::Impl::attention(int index, Matrix& hidden, const Past& past) const {
  const Matrix heads = attention_heads(index, input_of(index, Half::attention, hidden), past);
  join(index, Half::attention, linear(index, Role::o).apply(heads), hidden);
}

void Decoder::Impl::feed_forward(int index, Matrix& hidden) const {
  const Matrix input = input_of(index, Half::feed_forward, hidden);
  Matrix output = config.has_experts(index) ? mixture(config, layer(index), input)
                                            : linear(index, Role::down).apply(dense_inner(config, layer(index), input));
  join(index, Half::feed_forward, std::move(output), hidden);
}

Matrix Decoder::Impl::head(const Matrix& hidden) const {
  const auto& linears = weights.model.linears;
  Matrix x = config.final_norm ? normalized(weights.model, Role::final_norm, hidden) : hidden;
  if (config.embedding != config.hidden) x = linears.at(Role::project_out).apply(x);
  Matrix logits = linears.at(config.tied_head ? Role::token_embedding : Role::head).apply(x);
  scale_by(config.logit_scale, logits);
  if (config.logit_cap > 0) cap(config.logit_cap, logits);
  return logits;
}

// ---- the public face

Decoder::Decoder(std::shared_ptr<const Checkpoint> checkpoint) : impl_(std::make_unique<Impl>(std::move(checkpoint))) {}
Decoder::~Decoder() = default;

const Config& Decoder::config() const { return impl_->config; }
const Arch& Decoder::arch() const { return impl_->arch; }
const Checkpoint& Decoder::checkpoint() const { return *impl_->checkpoint; }

int64_t Decoder::max_length() const {
  return config().position == PositionKind::learned ? config().context : std::numeric_limits<int32_t>::max();
}

Matrix Decoder::forward(std::span<const int32_t> tokens, KvCache& cache, bool all_logits) const {
  const auto count = static_cast<int64_t>(tokens.size());
  if (cache.length_ + count > cache.capacity_)
    throw Error({.what = "the sequence does not fit into the cache of keys and values",
                 .expected = fmt::format("at most {} tokens", cache.capacity_),
                 .got = std::to_string(cache.length_ + count)});
  if (count == 0) return Matrix(0, config().vocab);
  Matrix hidden = impl_->embed(tokens, cache.length_);
  for (int i = 0; i < static_cast<int>(config().layers); ++i) {
    check_interrupt();
    const auto at = static_cast<size_t>(i);
    impl_->attention(i, hidden, {&cache.keys_[at], &cache.values_[at], cache.length_});
    impl_->feed_forward(i, hidden);
  }
  cache.length_ += count;
  if (!all_logits) hidden = copy_of(MatrixView(hidden).rows_between(count - 1, count));
  return impl_->head(hidden);
}

Matrix Decoder::logits(std::span<const int32_t> tokens) const {
  Matrix hidden = embed(tokens);
  for (int i = 0; i < static_cast<int>(config().layers); ++i) {
    check_interrupt();
    attention(i, hidden);
    feed_forward(i, hidden);
  }
  return head(hidden);
}

std::vector<Linear> Decoder::linears(int layer) const {
  const LayerWeights& weights = impl_->layer(layer);
  std::vector<Linear> out;
  const auto add = [&](const TensorName& t, Tap tap, const LinearLayer& linear) {
    out.push_back({t.role, tap, layer, linear.name(), linear.shape()});
  };
  for (const Site site : kSites)
    for (const TensorName& t : arch().tensors)
      if (site_of(t.role) == site && !is_of_experts(t.role) && has_tensor(config(), t, layer))
        add(t, {site}, weights.linears.at(t.role));
  for (size_t e = 0; e < weights.experts.size(); ++e)
    for (const Site site : kSites)
      for (const TensorName& t : arch().tensors)
        if (site_of(t.role) == site && is_of_experts(t.role) && weights.experts[e].contains(t.role))
          add(t, {site, static_cast<int>(e)}, weights.experts[e].at(t.role));
  return out;
}

std::vector<Tap> Decoder::taps(int layer) const {
  std::vector<Tap> out;
  for (const Linear& linear : linears(layer))
    if (out.empty() || out.back() != linear.tap) out.push_back(linear.tap);
  return out;
}

Matrix Decoder::embed(std::span<const int32_t> tokens) const { return impl_->embed(tokens, 0); }

Matrix Decoder::tap_input(int layer, Tap tap, const Matrix& hidden, bool all_tokens) const {
  const Half half = is_in_attention(tap.site) ? Half::attention : Half::feed_forward;
  Matrix input = impl_->input_of(layer, half, hidden);
  const LayerWeights& weights = impl_->layer(layer);
  if (tap.expert >= 0) {
    const auto expert = static_cast<size_t>(tap.expert);
    if (!all_tokens) input = visitors(config(), input, visits_of(config(), weights, input)[expert]);
    return tap.site == Site::ffn_in ? input : expert_inner(config(), weights, expert, input);
  }
  switch (tap.site) {
    case Site::attn_in:
    case Site::ffn_in:
      break;
    case Site::q_latent:
      return impl_->q_latent(layer, input);
    case Site::kv_latent:
      return impl_->kv_latent(layer, impl_->linear(layer, Role::kv_a).apply(input));
    case Site::attn_out:
      return impl_->attention_heads(layer, input, {});
    case Site::ffn_out:
      return dense_inner(config(), weights, input);
    case Site::shared_out:
      return shared_inner(config(), weights, input);
  }
  return input;
}

void Decoder::attention(int layer, Matrix& hidden) const { impl_->attention(layer, hidden, {}); }
void Decoder::feed_forward(int layer, Matrix& hidden) const { impl_->feed_forward(layer, hidden); }
Matrix Decoder::head(const Matrix& hidden) const { return impl_->head(hidden); }

LinearLayer& Decoder::Impl::find(const Linear& linear) {
  LayerWeights& of = weights.layers.at(static_cast<size_t>(linear.layer));
  return linear.tap.expert < 0 ? of.linears.at(linear.role)
                               : of.experts.at(static_cast<size_t>(linear.tap.expert)).at(linear.role);
}

Matrix Decoder::weight(const Linear& linear) const { return impl_->find(linear).floats(); }

void Decoder::replace(const Linear& linear, PackedMatrix weight) {
  assert(weight.shape() == linear.shape);
  impl_->find(linear).replace(std::move(weight));
}

void Decoder::forget_layer(int layer) {
  LayerWeights& weights = impl_->weights.layers.at(static_cast<size_t>(layer));
  for (auto& [role, linear] : weights.linears) linear.forget();
  for (auto& expert : weights.experts)
    for (auto& [role, linear] : expert) linear.forget();
}

int64_t Decoder::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& [role, linear] : impl_->weights.model.linears) bytes += linear.bytes();
  for (const LayerWeights& layer : impl_->weights.layers) {
    for (const auto& [role, linear] : layer.linears) bytes += linear.bytes();
    for (const auto& expert : layer.experts)
      for (const auto& [role, linear] : expert) bytes += linear.bytes();
  }
  return bytes;
}

}  // namespace pare
