// The written checkpoint is opened with the ordinary reader and compared, value by value through fingerprints, with
// what was meant to be written.
#pragma once

#include "pare/quantize/pipeline.h"

namespace pare {

struct Assessment {
  uint64_t fingerprint = 0;  // of all values, in order
  double error = 0;          // sum of squared differences to w
  double power = 0;          // sum of squares of w
};
// `w` may be empty: only the fingerprint is made then.
Assessment assess(const Quantized& q, MatrixView w);
uint64_t fingerprint_of(std::span<const std::byte> bytes);

// Throws Error(internal) naming the first tensor that differs.
void verify_written(const Plan& plan, const std::filesystem::path& staged, const std::vector<TensorReport>& intended,
                    const Observer& observer);

}  // namespace pare
