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
// One token from logits (of size vocab), temperature last after the filters, as the common samplers do.
class Sampler {
 public:
  explicit Sampler(const Sampling& options);
  int32_t pick(std::span<const float> logits);

 private:
  Sampling options_;
  uint64_t state_;
};

struct Generated {
  std::vector<int32_t> tokens;
  double prefill_seconds = 0, decode_seconds = 0;
};
// Stops after `count` tokens, at an id of `stop`, or when on_token returns false.
Generated generate(const Decoder& model, std::span<const int32_t> prompt, int count, const Sampling& sampling,
                   std::span<const int32_t> stop, const std::function<bool(int32_t)>& on_token = {});

}  // namespace pare
