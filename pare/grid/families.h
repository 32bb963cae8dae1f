// What the families of grids have in common, inside grid/ only. Every grid of the closed set is piecewise a line: the
// columns that share their parameters hold  value = scale (code - zero) - min.  Whatever rounds, expands or revisits
// codes needs that line and the number of codes, and no more.
#pragma once

#include <string_view>

#include "pare/grid/quantized.h"

namespace pare {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// One row's line, in the order of operations in which readers evaluate it: f32, products left to right.
struct Line {
  float scale = 0, zero = 0, min = 0;
  float value(uint8_t code) const { return scale * (static_cast<float>(code) - zero) - min; }
};

struct BlockTraits {
  BlockSpec::Type type;
  std::string_view name;
  double bits_per_weight;
  int top;     // largest code
  int middle;  // the code of value 0
};
struct SuperBlockTraits {
  SuperBlockSpec::Type type;
  std::string_view name;
  double bits_per_weight;
  int top, middle;
  int64_t sub;                      // columns per sub-block
  int lowest_scale, highest_scale;  // of the stored integers
  bool mins;                        // 0 … highest_scale, and a super-scale of their own
};

const BlockTraits& traits(const BlockSpec& spec);
const SuperBlockTraits& traits(const SuperBlockSpec& spec);

inline constexpr float kLargestF16 = 65504, kSmallestF16 = 0x1p-24f;

// Largest code; columns that share one line; the line itself.
int top_code(const Params& params);
int64_t line_columns(const Params& params);
Line line_at(const Params& params, int64_t row, int64_t col);

}  // namespace pare
