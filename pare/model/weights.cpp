#include "pare/model/weights.h"

#include <algorithm>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/base/mapped_file.h"
#include "pare/base/threads.h"
#include "pare/tensor/linalg.h"

namespace pare {
namespace {

bool can_be_viewed(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

PackedMatrix packed(const std::shared_ptr<const Checkpoint>& checkpoint, const std::string& name, Weight weight) {
  if (const auto* floats = std::get_if<FloatTensor>(&weight)) {
    if (can_be_viewed(floats->dtype))
      return PackedMatrix::of_floats(floats->dtype, floats->bytes, {floats->shape[0], floats->shape[1]}, checkpoint);
    PackedMatrix out = PackedMatrix::of_matrix(floats->to_matrix());
    checkpoint->forget(name);
    return out;
  }
  PackedMatrix out = PackedMatrix::of_quantized(std::get<Quantized>(weight));
  checkpoint->forget(name);
  return out;
}

std::vector<float> load_vector(const Checkpoint& checkpoint, const std::string& name) {
  const Weight weight = checkpoint.load(name);
  const auto* floats = std::get_if<FloatTensor>(&weight);
  if (!floats) throw Error({.what = "a norm or bias is quantized", .where = name, .expected = "floats"});
  const Matrix m = floats->to_matrix();
  return {m.values().begin(), m.values().end()};
}

std::vector<float> load_norm(const Checkpoint& checkpoint, const std::vector<std::string>& names, float offset) {
  std::vector<float> out;
  for (const std::string& name : names) {
    const std::vector<float> part = load_vector(checkpoint, name);
    out.insert(out.end(), part.begin(), part.end());
  }
  // GGUF's norms hold the sum.
  if (checkpoint.format() == Format::huggingface)
    for (float& x : out) x += offset;
  return out;
}

float norm_offset_of(const Config& config, Role role) {
  switch (role) {
    case Role::router_correction:
    case Role::sinks:
    case Role::xielu_alpha_p:
    case Role::xielu_alpha_n:
    case Role::xielu_beta:
    case Role::xielu_eps:
      return 0;
    default:
      return config.norm_offset;
  }
}

// Rows [first, last) of a matrix of floats in any type.
void to_f32_rows(const FloatTensor& t, int64_t first, int64_t last, float* out) {
  const int64_t cols = t.shape[1];
  const auto width = static_cast<size_t>(cols) * static_cast<size_t>(info(t.dtype).bits / 8);
  parallel_for(last - first, [&](int64_t r) {
    to_f32(t.dtype, t.bytes.subspan(static_cast<size_t>(first + r) * width, width),
           {out + r * cols, static_cast<size_t>(cols)});
  });
}

}  // namespace

LinearLayer::LinearLayer(std::shared_ptr<const Checkpoint> checkpoint, std::string name, const std::string& bias,
                         bool transposed)
    : checkpoint_(std::move(checkpoint)), name_(std::move(name)) {
  Weight weight = checkpoint_->load(name_);
  const auto* floats = std::get_if<FloatTensor>(&weight);
  if (floats && floats->shape.size() != 2)
    throw Error({.what = "a weight is not a matrix", .where = name_, .expected = "two dimensions"});
  if (floats && transposed) {
    conv1d_ = *floats;
    shape_ = {conv1d_.shape[1], conv1d_.shape[0]};
  } else {
    weight_ = packed(checkpoint_, name_, std::move(weight));
    shape_ = weight_.shape();
  }
  if (!bias.empty()) bias_ = load_vector(*checkpoint_, bias);
}

LinearLayer::LinearLayer(std::shared_ptr<const Checkpoint> checkpoint, std::string name, FloatTensor slice,
                         bool transposed, std::vector<float> bias)
    : checkpoint_(std::move(checkpoint)), name_(std::move(name)), bias_(std::move(bias)) {
  if (transposed) {
    conv1d_ = std::move(slice);
    shape_ = {conv1d_.shape[1], conv1d_.shape[0]};
  } else {
    weight_ = packed(checkpoint_, name_, std::move(slice));
    shape_ = weight_.shape();
  }
}

Matrix LinearLayer::apply(MatrixView x) const {
  Matrix y(x.rows, shape_.rows);
  const PackedMatrix& weight = stand_in_.empty() ? weight_ : stand_in_;
  if (weight.empty()) multiply_transposed_weight(x, y);
  // Some tokens at a time, so that they stay in the cache while the weights pass by (bench/forward_bench.cpp).
  constexpr int64_t kTokens = 128;
  for (int64_t t = 0; t < x.rows && !weight.empty(); t += kTokens)
    weight.multiply(x.rows_between(t, std::min(x.rows, t + kTokens)), y.row(t), y.cols());
  add_bias(bias_, y);
  return y;
}

// The weight lies as [in, out]: some of its rows at a time become floats, and their products add up in y.
void LinearLayer::multiply_transposed_weight(MatrixView x, Matrix& y) const {
  constexpr int64_t kRows = 256;
  std::vector<float> strip(static_cast<size_t>(std::min(kRows, shape_.cols) * shape_.rows));
  for (int64_t first = 0; first < shape_.cols; first += kRows) {
    const int64_t last = std::min(shape_.cols, first + kRows);
    to_f32_rows(conv1d_, first, last, strip.data());
    multiply_add(1, x.cols_between(first, last), {strip.data(), last - first, shape_.rows, shape_.rows}, y.data(),
                 y.cols());
  }
}

Matrix LinearLayer::floats() const {
  Matrix out(shape_.rows, shape_.cols);
  if (weight_.empty()) {
    Matrix turned(shape_.cols, shape_.rows);
    to_f32_rows(conv1d_, 0, shape_.cols, turned.data());
    return transposed(turned);
  }
  constexpr int64_t kRows = 64;
  parallel_for((shape_.rows + kRows - 1) / kRows, [&](int64_t i) {
    weight_.expand_rows(i * kRows, std::min(shape_.rows, (i + 1) * kRows), out.row(i * kRows));
  });
  return out;
}

void LinearLayer::rows(std::span<const int32_t> ids, Matrix& out) const {
  for (size_t i = 0; i < ids.size(); ++i) weight_.expand_rows(ids[i], ids[i] + 1, out.row(static_cast<int64_t>(i)));
}

void LinearLayer::replace(PackedMatrix weight) { stand_in_ = std::move(weight); }

void LinearLayer::forget() {
  stand_in_ = PackedMatrix();
  if (!weight_.empty()) weight_.forget();
  checkpoint_->forget(name_);
}

int64_t LinearLayer::bytes() const {
  const PackedMatrix& weight = stand_in_.empty() ? weight_ : stand_in_;
  return weight.empty() ? static_cast<int64_t>(conv1d_.bytes.size()) : weight.bytes();
}

namespace {

void load_stack(const std::shared_ptr<const Checkpoint>& checkpoint, const TensorNames& names, const TensorName& t,
                int layer, const Config& config, LayerWeights& into) {
  const std::string name = names.weight(t, layer);
  const Weight weight = checkpoint->load(name);
  const auto* stack = std::get_if<FloatTensor>(&weight);
  if (!stack) throw Error({.what = "experts in one quantized tensor are not supported", .where = name});
  const Shape shape = expected_shape(config, t.role);
  const auto experts = static_cast<size_t>(config.moe->experts), bytes = stack->bytes.size() / experts;
  Matrix biases;
  if (!t.stacked_bias.empty())
    biases = std::get<FloatTensor>(checkpoint->load(names.stacked_bias(t, layer))).to_matrix();
  into.experts.resize(experts);
  for (size_t e = 0; e < experts; ++e) {
    FloatTensor slice{stack->dtype, {shape.rows, shape.cols}, stack->bytes.subspan(e * bytes, bytes)};
    if (t.transposed) std::swap(slice.shape[0], slice.shape[1]);
    std::vector<float> bias;
    if (!biases.empty()) {
      const float* row = biases.row(static_cast<int64_t>(e));
      bias.assign(row, row + biases.cols());
    }
    into.experts[e][t.role] = LinearLayer(checkpoint, name, std::move(slice), t.transposed, std::move(bias));
  }
}

}  // namespace

DecoderWeights::DecoderWeights(std::shared_ptr<const Checkpoint> checkpoint, const Config& config, const Arch& arch)
    : layers(static_cast<size_t>(config.layers)) {
  const TensorNames names(arch, *checkpoint);
  const bool conv1d = checkpoint->format() == Format::huggingface;
  const auto load = [&](const TensorName& t, int layer, LayerWeights& into) {
    check_interrupt();
    if (t.stacked) return load_stack(checkpoint, names, t, layer, config, into);
    if (is_per_expert(t)) {
      into.experts.resize(static_cast<size_t>(config.moe->experts));
      for (int e = 0; e < config.moe->experts; ++e)
        into.experts[static_cast<size_t>(e)][t.role] = LinearLayer(checkpoint, names.weight(t, layer, e), "", false);
      return;
    }
    const std::string bias = has_bias(config, t) ? names.bias(t, layer) : "";
    if (is_norm(t.role))
      into.norms[t.role] = {
          load_norm(*checkpoint, names_of_parts(config, t, names.weight(t, layer)), norm_offset_of(config, t.role)),
          bias.empty() ? std::vector<float>() : load_vector(*checkpoint, bias)};
    else
      into.linears[t.role] = LinearLayer(checkpoint, names.weight(t, layer), bias, t.transposed && conv1d);
  };
  for (const TensorName& t : arch.tensors)
    if (!is_per_layer(t) && has_tensor(config, t)) load(t, -1, model);
  for (size_t i = 0; i < layers.size(); ++i)
    for (const TensorName& t : arch.tensors)
      if (is_per_layer(t) && has_tensor(config, t, static_cast<int>(i))) load(t, static_cast<int>(i), layers[i]);
}

}  // namespace pare
