// Layers of 8-bit and 4-bit floats with scales, as compressed-tensors, DeepSeek's FP8 and gpt-oss' MXFP4 checkpoints
// hold them. For W [N outputs x K inputs]:
//
//   FP8     codes F8_E4M3 [N, K], scales f16, bf16 or f32: [1], [N, 1], or [ceil(N/B), ceil(K/B)] for blocks of B x B
//   MXFP8   codes F8_E4M3 [N, K], scales U8 [N, K/32]: powers of two, 127 is 1
//   MXFP4   codes U8 [N, K/2], two E2M1 numbers a byte, the first in the low half; scales as MXFP8
//   NVFP4   codes as MXFP4, scales F8_E4M3 [N, K/16], divided by a global F32 [1]
//
// Source: hf_checkpoints.md A.3.
#pragma once

#include <string>
#include <vector>

#include "pare/container/hf_format.h"

namespace pare {

struct FloatLayer {
  const StoredTensor *codes = nullptr, *scales = nullptr, *global = nullptr;  // global may be null
  Shape shape;
  CodebookSpec spec;
  int64_t block = 0;  // FP8 in blocks: rows and columns under one stored scale
};

// From types and shapes, which are checked against each other; throws Error naming the tensor. `block` is the side of
// FP8 blocks. Tensors of higher rank fold all but the last dimensions into rows.
FloatLayer float_layer(const StoredTensor& codes, const StoredTensor& scales, const StoredTensor* global,
                       int64_t block = 128);
Quantized load_float_layer(const FloatLayer& layer);

// Whether these formats can hold the grid.
bool is_float_grid(const CodebookSpec& spec);
// Codes and scales as tensors, and the global scale where there is one.
struct FloatTensors {
  std::vector<int64_t> codes_shape, scales_shape;
  DType codes_type = DType::u8, scales_type = DType::f32;
};
FloatTensors float_tensors(const CodebookSpec& spec, Shape shape);
std::vector<std::byte> float_codes(const Quantized& q);
std::vector<std::byte> float_scales(const Quantized& q);

}  // namespace pare
