// One linear layer as GPTQ files hold it <-> Quantized. For W [N outputs x K inputs], b bits, G groups of columns:
//
//   <module>.qweight  I32 [K·b/32, N]   codes, packed down the inputs
//   <module>.qzeros   I32 [G, N·b/32]   zero points, packed along the outputs; v1 stores the zero minus one
//   <module>.scales   F16 [G, N]
//   <module>.g_idx    I32 [K]           group of each input; absent in some files: k / group
//
// Planar, a run of 32 codes of 3, 5, 6 or 7 bits is cut into planes of 2 + 1, 4 + 1, 4 + 2 or 4 + 2 + 1 bits, each a
// bit string of its own in as many words as it has bits.
//
// value = scale[g, n] · (code[k, n] − zero[g, n]), g = g_idx[k]. Source: hf_checkpoints.md A.1.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "pare/container/checkpoint.h"
#include "pare/grid/quantized.h"

namespace pare {

// Formats v1 and v2, and GPTQModel's "gptq_p": zeros as in v2, and every 32 codes in bit planes, low planes first.
enum class GptqZeros : uint8_t { minus_one, plain, planar };

// What a checkpoint says about all its layers.
struct GptqConvention {
  GptqZeros zeros = GptqZeros::minus_one;
  bool symmetric = true;  // as configured: constant zero points are then read as the middle, whatever the format says
  bool whole_words = false;  // v1 zeros were made by subtracting from whole words, so fields may have borrowed
};

struct GptqParts {
  std::string module;
  const StoredTensor *qweight = nullptr, *qzeros = nullptr, *scales = nullptr, *g_idx = nullptr;  // g_idx may be null
};

struct GptqLayout {
  int bits = 0;
  int64_t rows = 0, cols = 0, groups = 0;
  int64_t group() const { return cols / groups; }
  Shape shape() const { return {rows, cols}; }
};

// From the shapes alone, which are checked against each other; throws Error naming the tensor.
GptqLayout gptq_layout(const GptqParts& parts);
// The grid that the layer lies on; looks at its zero points.
AffineSpec gptq_spec(const GptqParts& parts, const GptqConvention& convention);
// Throws Error on scales that are not finite or not exact in f16, and on groups that are no equal parts of the columns.
Quantized decode_gptq(const GptqParts& parts, const GptqConvention& convention);
// Whether constant zero points contradict the format that the checkpoint names.
bool contradicts_format(const GptqParts& parts, const GptqConvention& convention);

struct GptqBytes {
  std::vector<std::byte> qweight, qzeros, scales, g_idx;
  bool ordered = false;  // g_idx is not k / group
};
GptqBytes encode_gptq(const Quantized& q, GptqZeros zeros);

}  // namespace pare
