// Values of packed blocks, one at a time, from the formulas of formats.md §3.3 alone.
#pragma once

#include <string>

namespace pare::test {

// IQ types need the codebooks of formats/iq_grids.txt, read once.
void read_codebooks(const std::string& path);

// The value of weight e of one block of a GGUF type ("q4_k"); throws std::runtime_error for a type it does not know.
float block_value(const std::string& type, const std::string& block, int e);

}  // namespace pare::test
