// The weights of a decoder as it multiplies with them: one place that knows how they lie in the checkpoint.
#pragma once

#include <map>
#include <memory>

#include "pare/kernels/packed.h"
#include "pare/model/arch.h"
#include "pare/model/elementwise.h"

namespace pare {

// y = x Wᵀ + b. The weight is the checkpoint's: packed, mapped, or mapped as [in, out] (Conv1D); or, while quantizing,
// one that stands in for it.
class LinearLayer {
 public:
  LinearLayer() = default;
  // `transposed`: a float tensor of the file is [in, out].
  LinearLayer(std::shared_ptr<const Checkpoint> checkpoint, std::string name, const std::string& bias, bool transposed);

  // One expert of a stack: `slice` is a matrix within the tensor `name`.
  LinearLayer(std::shared_ptr<const Checkpoint> checkpoint, std::string name, FloatTensor slice, bool transposed,
              std::vector<float> bias);

  Matrix apply(MatrixView x) const;
  Matrix floats() const;                                       // of the checkpoint's weight
  void rows(std::span<const int32_t> ids, Matrix& out) const;  // row ids[i] of the weight into row i
  void replace(PackedMatrix weight);
  void forget();
  Shape shape() const { return shape_; }
  int64_t bytes() const;
  const std::string& name() const { return name_; }

 private:
  void multiply_transposed_weight(MatrixView x, Matrix& y) const;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::string name_;
  Shape shape_;
  PackedMatrix weight_;    // empty for a Conv1D
  FloatTensor conv1d_;     // [in, out]
  PackedMatrix stand_in_;  // empty: none
  std::vector<float> bias_;
};

struct LayerWeights {
  std::map<Role, LinearLayer> linears;
  std::map<Role, NormWeights> norms;
  std::vector<std::map<Role, LinearLayer>> experts;
};

struct DecoderWeights {
  // Shapes were checked by read_config.
  DecoderWeights(std::shared_ptr<const Checkpoint> checkpoint, const Config& config, const Arch& arch);
  LayerWeights model;  // embeddings, projections, final norm, head
  std::vector<LayerWeights> layers;
};

}  // namespace pare
