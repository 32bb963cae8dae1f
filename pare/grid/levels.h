// Tables of level values, for grids whose levels are not evenly spaced, and the number formats in which their scales
// are stored.
#pragma once

#include <cstdint>
#include <string_view>

#include "pare/grid/grid.h"

namespace pare {

// Codes 0 … count - 1 name `level`, ascending; equal neighbours (two zeros) may be told apart by files.
struct LevelTable {
  static constexpr int kMost = 256;

  std::string_view name;
  int count = 0;
  int span = 0;  // the power of two not below count
  float level[kMost] = {};
  float above[kMost] =
      {};  // what lies above above[i] is nearer to level i + 1 than to level i; span - 1, inf at the end

  float lowest() const { return level[0]; }
  float highest() const { return level[count - 1]; }
  float reach() const { return -lowest() > highest() ? -lowest() : highest(); }
  bool symmetric() const { return -lowest() == highest(); }
  int bits() const;             // of a code
  int nearest(float x) const {  // NaN: 0
    int code = 0;
    for (int step = span / 2; step > 0; step /= 2)
      if (x > above[code + step - 1]) code += step;
    return code;
  }
};

const LevelTable& level_table(CodebookSpec::Levels levels);

// A scale rounded to what can be stored; between `lowest_scale` and `highest_scale` of the kind. x is no NaN.
float stored_scale(ScaleKind kind, float x);
float lowest_scale(ScaleKind kind);
float highest_scale(ScaleKind kind);
int scale_bits(ScaleKind kind);

}  // namespace pare
