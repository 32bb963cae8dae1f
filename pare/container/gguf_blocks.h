// Bytes of GGUF blocks <-> Quantized, losslessly. Layout pictures are in the .cpp, above the code that reads them.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "pare/container/gguf.h"
#include "pare/grid/quantized.h"

namespace pare {

// The grid of a packed type, or nullptr for plain types (f32, …) and types Pare does not decode yet.
const Grid* grid_of(const GgmlTypeInfo& type);
// The grid as GGUF holds it (nvfp4 in blocks of 64), or nullptr.
const Grid* gguf_grid(const Grid& wanted);
// The type that stores a grid, or nullptr.
const GgmlTypeInfo* ggml_type_of(const Grid& grid);

// `out` holds ggml_bytes of the matrix; rows in parallel. Asserts that the grid has a type and columns are in place.
void encode_blocks(const Quantized& q, std::span<std::byte> out);
// Throws Error naming `tensor` on NaN or infinite scales.
Quantized decode_blocks(const GgmlTypeInfo& type, Shape shape, std::span<const std::byte> bytes,
                        const std::string& tensor);

}  // namespace pare
