// Codes of level tables as files spell them <-> places in the ascending tables of grid/levels.h.
#pragma once

#include <array>
#include <cstdint>

#include "pare/container/hf_format.h"
#include "pare/grid/levels.h"

namespace pare {

struct CodeMap {
  static constexpr int16_t kNone = -1;
  std::array<int16_t, 256> level = {};  // of a file's code; kNone: no number (NaN)
  std::array<uint8_t, 256> code = {};   // of a level
};

// nf4: the same. fp4, e2m1: bit 3 is the sign; fp4's magnitudes are not in order. e4m3: the bit pattern. int8: the
// signed byte.
const CodeMap& code_map(CodebookSpec::Levels levels);

// In place: a file's codes to levels and back. Throws Error naming `t` and the place of a code that is no number.
void to_levels(const CodeMap& map, const StoredTensor& t, Plane<uint8_t>& codes);
void to_codes(const CodeMap& map, Plane<uint8_t>& levels);

}  // namespace pare
