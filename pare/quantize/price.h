// What a plan costs, from formulas that tests compare with measured runs.
#pragma once

#include "pare/quantize/plan.h"

namespace pare {

// Resident memory at its worst. RTN: the largest tensor as f32, its codes and its bytes. GPTQ: one decoder block in f32
// (its replaced weights), the matrix being solved with its error and codes, a site's Hessian with its factor, the
// hidden states of all calibration windows, the activations of one window per thread, and what is mapped meanwhile.
int64_t estimate_memory(const Plan& plan);
// Seconds, from the arithmetic and bytes of the plan and a probe of this machine (a few milliseconds).
double estimate_seconds(const Plan& plan);

std::vector<RuntimeVerdict> judge_runtimes(const Plan& plan);

}  // namespace pare
