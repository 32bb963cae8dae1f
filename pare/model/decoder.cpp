#include "pare/model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/model/attention.h"
#include "pare/model/elementwise.h"
#include "pare/model/rope.h"
#include "pare/model/weights.h"

namespace pare {

KvCache::KvCache(const Config& config, int64_t capacity) : capacity_(capacity) {
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    keys_.emplace_back(capacity, config.kv_width());
    values_.emplace_back(capacity, config.kv_width());
  }
}

int64_t KvCache::bytes() const {
  int64_t floats = 0;
  for (const Matrix& m : keys_) floats += 2 * m.size();
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
  int64_t q_stride = 0, kv_stride = 0;
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
  Matrix feed_forward_inner(int index, const Matrix& input) const;
  Projected project(int index, const Matrix& input) const;
  void rotate_heads(int index, Projected& p, int64_t tokens, int64_t first) const;
  Matrix normalized(const LayerWeights& of, Role norm, MatrixView x) const;
  // What a block's half reads, and how its output joins the state. Between the halves of a parallel block the state has
  // the block's input in further columns.
  Matrix input_of(int index, Half half, const Matrix& hidden) const;
  void join(int index, Half half, Matrix output, Matrix& hidden) const;
  void check_tokens(std::span<const int32_t> tokens, int64_t first) const;
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
    p.v = p.k + config.kv_width();
    p.q_stride = p.kv_stride = p.owned[0].cols();
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
  p.kv_stride = config.kv_width();
  return p;
}

void Decoder::Impl::rotate_heads(int index, Projected& p, int64_t tokens, int64_t first) const {
  if (config.qk_norm != QkNorm::none) {
    const auto norm = [&](Role role, float* x, int64_t heads, int64_t stride) {
      const bool whole = config.qk_norm == QkNorm::whole;
      normalize_heads(config.norm, config.norm_eps, layer(index).norms.at(role), x, tokens, whole ? 1 : heads,
                      whole ? heads * config.head_dim : config.head_dim, stride);
    };
    norm(Role::q_norm, p.q, config.heads, p.q_stride);
    norm(Role::k_norm, p.k, config.kv_heads, p.kv_stride);
  }
  if (!config.rotates(index)) return;
  const Rope& rope = config.rope_of(index);
  const Frequencies frequencies = rope_frequencies(rope, first + tokens);
  rotate(rope, frequencies, p.q, tokens, config.heads, config.head_dim, p.q_stride, first);
  rotate(rope, frequencies, p.k, tokens, config.kv_heads, config.head_dim, p.kv_stride, first);
}

Matrix Decoder::Impl::attention_heads(int index, const Matrix& input, const Past& past) const {
  const int64_t tokens = input.rows(), length = past.length + tokens;
  Projected p = project(index, input);
  rotate_heads(index, p, tokens, past.length);
  MatrixView keys(p.k, tokens, config.kv_width(), p.kv_stride), values(p.v, tokens, config.kv_width(), p.kv_stride);
  if (past.keys) {
    copy_rows(keys, *past.keys, past.length);
    copy_rows(values, *past.values, past.length);
    keys = MatrixView(*past.keys).rows_between(0, length);
    values = MatrixView(*past.values).rows_between(0, length);
  }
  const AttentionShape shape{.heads = config.heads,
                             .kv_heads = config.kv_heads,
                             .head_dim = config.head_dim,
                             .window = config.window_of(index),
                             .scale = config.attention_scale,
                             .cap = config.attention_cap,
                             .slopes = slopes,
                             .slope_scale = config.alibi_scale,
                             .round_bias = config.alibi_bf16};
  Matrix out(tokens, config.q_width());
  attend(shape, {p.q, tokens, config.q_width(), p.q_stride}, keys, values, past.length, out.data());
  return out;
}

Matrix Decoder::Impl::feed_forward_inner(int index, const Matrix& input) const {
  if (layer(index).linears.contains(Role::gate_up)) {
    const Matrix both = linear(index, Role::gate_up).apply(input);
    Matrix gate = copy_of(MatrixView(both).cols_between(0, config.ffn));
    const Matrix up = copy_of(MatrixView(both).cols_between(config.ffn, 2 * config.ffn));
    activate(config.activation, gate.data(), up.data(), gate.rows(), gate.cols());
    return gate;
  }
  Matrix up = linear(index, Role::up).apply(input);
  if (!config.gated) {
    activate(config.activation, up.data(), nullptr, up.rows(), up.cols());
    return up;
  }
  Matrix gate = linear(index, Role::gate).apply(input);
  activate(config.activation, gate.data(), up.data(), gate.rows(), gate.cols());
  return gate;
}

void Decoder::Impl::attention(int index, Matrix& hidden, const Past& past) const {
  const Matrix heads = attention_heads(index, input_of(index, Half::attention, hidden), past);
  join(index, Half::attention, linear(index, Role::o).apply(heads), hidden);
}

void Decoder::Impl::feed_forward(int index, Matrix& hidden) const {
  const Matrix inner = feed_forward_inner(index, input_of(index, Half::feed_forward, hidden));
  join(index, Half::feed_forward, linear(index, Role::down).apply(inner), hidden);
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
  std::vector<Linear> out;
  for (const Site site : kSites)
    for (const TensorName& t : arch().tensors)
      if (site_of(t.role) == site && has_tensor(config(), t)) {
        const LinearLayer& linear = impl_->linear(layer, t.role);
        out.push_back({t.role, site, layer, linear.name(), linear.shape()});
      }
  return out;
}

Matrix Decoder::embed(std::span<const int32_t> tokens) const { return impl_->embed(tokens, 0); }

Matrix Decoder::site_input(int layer, Site site, const Matrix& hidden) const {
  const bool attention_half = site == Site::attn_in || site == Site::attn_out;
  Matrix input = impl_->input_of(layer, attention_half ? Half::attention : Half::feed_forward, hidden);
  if (site == Site::attn_out) return impl_->attention_heads(layer, input, {});
  if (site == Site::ffn_out) return impl_->feed_forward_inner(layer, input);
  return input;
}

void Decoder::attention(int layer, Matrix& hidden) const { impl_->attention(layer, hidden, {}); }
void Decoder::feed_forward(int layer, Matrix& hidden) const { impl_->feed_forward(layer, hidden); }
Matrix Decoder::head(const Matrix& hidden) const { return impl_->head(hidden); }

Matrix Decoder::weight(const Linear& linear) const { return impl_->linear(linear.layer, linear.role).floats(); }

void Decoder::replace(const Linear& linear, PackedMatrix weight) {
  assert(weight.shape() == linear.shape);
  impl_->weights.layers.at(static_cast<size_t>(linear.layer)).linears.at(linear.role).replace(std::move(weight));
}

void Decoder::forget_layer(int layer) {
  for (auto& [role, linear] : impl_->weights.layers.at(static_cast<size_t>(layer)).linears) linear.forget();
}

int64_t Decoder::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& [role, linear] : impl_->weights.model.linears) bytes += linear.bytes();
  for (const LayerWeights& layer : impl_->weights.layers)
    for (const auto& [role, linear] : layer.linears) bytes += linear.bytes();
  return bytes;
}

}  // namespace pare
