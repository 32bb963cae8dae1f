// What a plan and a run look like to other programs, and the small files that go beside the weights.
#pragma once

#include "pare/quantize/pipeline.h"

namespace pare {

// The keys of `pare plan --json` and `pare quantize --json` (design/cli.md).
Json to_json(const Plan& plan);
Json to_json(const Plan& plan, const QuantizeReport& report);

// Adds pare-report.json, SHA256SUMS and, in a directory, a model card; fills report.output_sha256.
void add_companions(const Plan& plan, const std::filesystem::path& output, Writer& writer, QuantizeReport& report);

}  // namespace pare
