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

void copy_rows(MatrixView from, Matrix& to, int64_t first) {
  for (int64_t r = 0; r < from.rows; ++r) std::copy_n(from.row(r), from.cols, to.row(first + r));
}

}  // namespace

struct Decoder::Impl {
  explicit Impl(std::shared_ptr<const Checkpoint> from)
      : checkpoint(std::move(from)),
        config(read_config(*checkpoint)),
        arch(find_arch(config.architecture)),
        weights(checkpoint, config, arch) {}

  std::shared_ptr<const Checkpoint> checkpoint;
  Config config;
  const Arch& arch;
  DecoderWeights weights;

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
  Matrix normalized(const NormWeights& norm, const Matrix& x) const;
  // What a block's half reads, and how its output joins the state.
  Matrix input_of(int index, Role norm, const Matrix& hidden) const;
  void join(int index, Role norm, const Matrix& output, Matrix& hidden) const;
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

Matrix Decoder::Impl::normalized(const NormWeights& norm, const Matrix& x) const {
  Matrix out(x.rows(), x.cols());
  normalize(config.norm, config.norm_eps, norm, x, out.data(), out.cols());
  return out;
}

Matrix Decoder::Impl::input_of(int index, Role norm, const Matrix& hidden) const {
  return config.pre_norm ? normalized(layer(index).norms.at(norm), hidden) : hidden;
}

void Decoder::Impl::join(int index, Role norm, const Matrix& output, Matrix& hidden) const {
  add_rows(output, hidden);
  if (config.pre_norm) return;
  normalize(config.norm, config.norm_eps, layer(index).norms.at(norm), hidden, hidden.data(), hidden.cols());
}

Projected Decoder::Impl::project(int index, const Matrix& input) const {
  Projected p;
  if (layer(index).linears.contains(Role::qkv)) {
    p.owned.push_back(linear(index, Role::qkv).apply(input));
    p.q = p.owned[0].data();
    p.k = p.q + config.q_width();
    p.v = p.k + config.kv_width();
    p.q_stride = p.kv_stride = p.owned[0].cols();
    return p;
  }
  for (const Role role : {Role::q, Role::k, Role::v}) p.owned.push_back(linear(index, role).apply(input));
  p.q = p.owned[0].data();
  p.k = p.owned[1].data();
  p.v = p.owned[2].data();
  p.q_stride = config.q_width();
  p.kv_stride = config.kv_width();
  return p;
}

void Decoder::Impl::rotate_heads(int index, Projected& p, int64_t tokens, int64_t first) const {
  if (config.qk_norm) {
    const auto& norms = layer(index).norms;
    normalize_heads(config.norm_eps, norms.at(Role::q_norm), p.q, tokens, config.heads, p.q_stride);
    normalize_heads(config.norm_eps, norms.at(Role::k_norm), p.k, tokens, config.kv_heads, p.kv_stride);
  }
  if (config.position != PositionKind::rope) return;
  const Frequencies frequencies = rope_frequencies(config.rope, first + tokens);
  rotate(config.rope, frequencies, p.q, tokens, config.heads, config.head_dim, p.q_stride, first);
  rotate(config.rope, frequencies, p.k, tokens, config.kv_heads, config.head_dim, p.kv_stride, first);
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
  const AttentionShape shape{config.heads, config.kv_heads, config.head_dim, config.window_of(index)};
  Matrix out(tokens, config.q_width());
  attend(shape, {p.q, tokens, config.q_width(), p.q_stride}, keys, values, past.length, out.data());
  return out;
}

Matrix Decoder::Impl::feed_forward_inner(int index, const Matrix& input) const {
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
  const Matrix heads = attention_heads(index, input_of(index, Role::attn_norm, hidden), past);
  join(index, Role::attn_norm, linear(index, Role::o).apply(heads), hidden);
}

void Decoder::Impl::feed_forward(int index, Matrix& hidden) const {
  const Matrix inner = feed_forward_inner(index, input_of(index, Role::ffn_norm, hidden));
  join(index, Role::ffn_norm, linear(index, Role::down).apply(inner), hidden);
}

Matrix Decoder::Impl::head(const Matrix& hidden) const {
  const auto& linears = weights.model.linears;
  Matrix x = config.final_norm ? normalized(weights.model.norms.at(Role::final_norm), hidden) : hidden;
  if (config.embedding != config.hidden) x = linears.at(Role::project_out).apply(x);
  return linears.at(config.tied_head ? Role::token_embedding : Role::head).apply(x);
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
      if (site_of(t.role) == site) {
        const LinearLayer& linear = impl_->linear(layer, t.role);
        out.push_back({t.role, site, layer, linear.name(), linear.shape()});
      }
  return out;
}

Matrix Decoder::embed(std::span<const int32_t> tokens) const { return impl_->embed(tokens, 0); }

Matrix Decoder::site_input(int layer, Site site, const Matrix& hidden) const {
  const bool attention_half = site == Site::attn_in || site == Site::attn_out;
  Matrix input = impl_->input_of(layer, attention_half ? Role::attn_norm : Role::ffn_norm, hidden);
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
