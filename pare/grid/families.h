// What the families of grids have in common, inside grid/ only. Every grid of the closed set is piecewise a line: the
// columns that share their parameters hold  value = scale · level - min,  where the level is code - zero or stands in a
// table. Whatever rounds, expands or revisits codes needs that line and the number of codes, and no more.
#pragma once

#include <string_view>

#include "pare/grid/lanes.h"
#include "pare/grid/lattice.h"
#include "pare/grid/levels.h"
#include "pare/grid/line.h"
#include "pare/grid/quantized.h"

namespace pare {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

struct BlockTraits {
  BlockSpec::Type type;
  std::string_view name;
  double bits_per_weight;
  int top;     // largest code
  int middle;  // the code of level 0
  int64_t columns;
  bool mins;
};
struct SuperBlockTraits {
  SuperBlockSpec::Type type;
  std::string_view name;
  double bits_per_weight;
  int top, middle;
  const LevelTable* table;          // null: levels are code - middle
  int64_t sub;                      // columns per sub-block
  int lowest_scale, highest_scale;  // of the stored integers
  bool mins;                        // 0 … highest_scale, and a super-scale of their own

  int subs() const { return static_cast<int>(SuperBlock::kColumns / sub); }
};

std::span<const BlockTraits> all_blocks();
std::span<const SuperBlockTraits> all_super_blocks();
const BlockTraits& traits(const BlockSpec& spec);
const SuperBlockTraits& traits(const SuperBlockSpec& spec);

inline constexpr float kLargestF16 = 65504, kSmallestF16 = 0x1p-24f;
inline constexpr float kSmallestScale = 0x1p-100f;  // of wider floats: its reciprocal is finite

// The lines of `rows` consecutive rows at one column, by the same products as line_at.
void gather_lines(const Params& params, int64_t row, int rows, int64_t col, lanes::LineLanes& out);

// An unfitted matrix; the shape has been checked.
Params make_params(const Grid& grid, Shape shape);
// Chooses the parameters of a strip's rows in one window, whose sanitised weights c holds, and stores them.
void fit_params(Params& params, int64_t window, const Strip& strip, const lanes::Columns& c, Search search);

}  // namespace pare
