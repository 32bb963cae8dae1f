// The parts of the forward pass that work on one row at a time: norms, activations, softmax. All in f32; the sums of a
// row always add in the same order, whatever the CPU's vectors.
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "pare/model/config.h"
#include "pare/tensor/matrix.h"

namespace pare {

struct NormWeights {
  std::vector<float> weight, bias;  // weight empty: all 1; bias empty: none
};

// Rows of x into out, which may be x itself. Parallel over rows.
void normalize(NormKind kind, double eps, const NormWeights& norm, MatrixView x, float* out, int64_t out_stride);
// The same for each of `heads` heads of `width` columns in rows `stride` apart. The weights are those of one head,
// which all share, or of all heads.
void normalize_heads(NormKind kind, double eps, const NormWeights& norm, float* x, int64_t tokens, int64_t heads,
                     int64_t width, int64_t stride);

// x = act(x), or x = act(x) * up where `up` is not null; both rows x cols without gaps. Parallel.
void activate(Activation activation, float* x, const float* up, int64_t rows, int64_t cols);

// The softmax of a row of scores that comes in parts: what was made of earlier parts is to be multiplied by what add()
// returns, and in the end everything is to be divided by sum().
class Softmax {
 public:
  explicit Softmax(float scale = 1) : scale_(scale) {}
  float add(std::span<float> scores);  // scores = exp(scale (scores - the highest so far))
  void add_score(float score);         // one that weighs nothing else: before all add()
  float sum() const { return sum_; }

 private:
  float scale_, highest_ = -std::numeric_limits<float>::infinity(), sum_ = 0;
};

void add_bias(std::span<const float> bias, Matrix& x);  // to every row; an empty bias is none
void add_rows(const Matrix& x, Matrix& sum);            // sum += x
void scale_by(float factor, Matrix& x);
void clip(float limit, Matrix& x);  // to [-limit, limit]
void cap(float limit, Matrix& x);   // x = limit · tanh(x / limit)

}  // namespace pare
