// Copies of the demo model to damage, and short settings to quantize it with.
#pragma once

#include <functional>

#include "pare/base/error.h"
#include "pare/quantize/pipeline.h"
#include "tests/support/golden.h"

namespace pare::test {

// Two windows of 64 tokens: enough to run every step, quick under sanitizers.
Settings quick_settings(std::string_view recipe);

// The demo model's directory copied to `to`, its config changed by `edit`.
void copy_model(const std::filesystem::path& to, const std::function<void(Json&)>& edit = {});
// Overwrites 4 bytes of a stored bf16 tensor at an element.
void poke_bf16(const std::filesystem::path& directory, const std::string& tensor, int64_t element, float value);

Plan plan_for(const std::filesystem::path& model, const Settings& settings);

// Runs and returns the Error, failing the test when there is none.
ErrorInfo error_of(const std::function<void()>& action);

}  // namespace pare::test
