// Text from a model, one token at a time.
#pragma once

#include <functional>

#include "pare/model/decoder.h"

namespace pare {

struct Sampling {
  double temperature = 0;  // 0: greedy
  int top_k = 0;           // 0: off
  double top_p = 1, min_p = 0;
  uint64_t seed = 0;
};
// One token from logits (of size vocab), temperature last after the filters, as the common samplers do. The same seed
// and logits give the same tokens on every machine.
class Sampler {
 public:
  explicit Sampler(const Sampling& options);  // throws Error(usage) for options out of range
  // NaN counts as impossible; throws Error when every logit is.
  int32_t pick(std::span<const float> logits);

 private:
  double next_uniform();  // [0, 1)
  Sampling options_;
  uint64_t state_;
};

struct Generated {
  std::vector<int32_t> tokens;
  double prefill_seconds = 0, decode_seconds = 0;
};
// Stops after `count` tokens, at an id of `stop` (which is not returned), when the model has no further positions, or
// when on_token returns false. The prompt goes through in pieces, so that memory does not grow with it. Throws Error
// for an empty prompt.
Generated generate(const Decoder& model, std::span<const int32_t> prompt, int count, const Sampling& sampling,
                   std::span<const int32_t> stop, const std::function<bool(int32_t)>& on_token = {});

}  // namespace pare
