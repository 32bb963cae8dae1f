// What all families of grids come down to once they are fitted: every grid is piecewise a line. The columns that share
// their parameters hold  value = scale · level - min,  where the level is code - zero or stands in a table.
#pragma once

#include "pare/grid/levels.h"
#include "pare/grid/quantized.h"

namespace pare {

// One row's line, in the order of operations in which readers evaluate it: f32, products left to right.
struct Line {
  float scale = 0, zero = 0, min = 0;
  const LevelTable* table = nullptr;  // null: levels are code - zero
  float level(uint8_t code) const { return table ? table->level[code] : static_cast<float>(code) - zero; }
  float value(uint8_t code) const { return scale * level(code) - min; }
};

// Columns that share one line; the line itself.
int64_t line_columns(const Params& params);
Line line_at(const Params& params, int64_t row, int64_t col);
// The same questions of a grid, where no matrix lies on it yet.
int64_t line_columns(const Grid& grid, int64_t cols);
const LevelTable* table_of(const Grid& grid);  // null: levels are code - zero
int codes_of(const Grid& grid);                // codes are 0 … codes_of - 1
int middle_of(const Grid& grid);               // the zero of lines without a table; -1 where each has its own
bool has_mins(const Grid& grid);               // lines of this grid may have a min other than 0

}  // namespace pare
