// The main job, and the only place where grids, solvers and containers meet. Start reading here.
#pragma once

#include "pare/base/progress.h"
#include "pare/quantize/plan.h"

namespace pare {

struct TensorReport {
  std::string name, source;
  std::string target;  // "q4_k", "f32"
  double bits_per_weight = 0;
  double weight_error = 0;   // |W - Q|² / |W|²
  double output_error = -1;  // tr((W-Q) H (W-Q)ᵀ) / tr(W H Wᵀ); below 0: not measured
  double damp = 0;           // GPTQ: the one that factored
  int64_t dead_columns = 0;
  double seconds = 0;
  int64_t changed = 0;       // conversions: values that are not exactly the source's; all were compared
  uint64_t fingerprint = 0;  // of the values that the solver intended
};

struct QuantizeReport {
  std::vector<TensorReport> tensors;  // in file order
  double seconds = 0;
  int64_t output_bytes = 0;  // of the weight files, as written
  int64_t peak_memory_bytes = 0;
  bool lossless() const;      // of a conversion: no value of any tensor changed
  std::string output_sha256;  // of the weight file, or of SHA256SUMS where there are several
};

// Carries out the plan. The output appears under `output` only when every tensor was read back and found equal to what
// the solver intended. Throws Error; nothing stays behind then.
QuantizeReport quantize(const Plan& plan, const std::filesystem::path& output, const Observer& observer = {});

}  // namespace pare
