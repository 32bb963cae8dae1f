// The vector kernels behind grid/, compiled once per instruction set and chosen at run time. Lane = row: every lane
// does one row's sequential f32 operations, multiplies and adds kept apart, so every CPU computes the same bytes.
#pragma once

#include <cstdint>

#include "pare/grid/quantized.h"

namespace pare {
struct LevelTable;
struct BlockTraits;
struct SuperBlockTraits;
struct LatticeTraits;
}  // namespace pare

namespace pare::lanes {

// One number for each of a strip's rows.
struct alignas(64) Lanes {
  float v[kLanes];
};

// value = scale · level - min of 16 rows, level = code - zero unless a table holds the levels (families.h).
struct LineLanes {
  Lanes scale, zero, min;
};

// Some columns of a strip and how much the squared error of each weight counts.
struct Columns {
  const Lanes* x = nullptr;
  const Lanes* importance = nullptr;  // range fits may leave it unread
  int64_t count = 0;

  Columns part(int64_t first, int64_t columns) const { return {x + first, importance + first, columns}; }
};

// Row-major floats <-> lanes: `rows` rows of `columns` floats, `stride` apart; missing rows become 0.
void transpose_in(const float* w, int64_t stride, int rows, int64_t columns, float* lanes);
void transpose_out(const float* lanes, int rows, int64_t columns, float* w, int64_t stride);

// Columns that share a line, on their way to codes: `values` (columns x kLanes) become what the codes stand for. Codes
// go to codes[row * stride + column].
struct StripPart {
  float* values = nullptr;
  int64_t columns = 0;
  int rows = 0;
  uint8_t* codes = nullptr;
  int64_t stride = 0;
};
void round(const LineLanes& line, int top, const StripPart& part);
void round_to_table(const LineLanes& line, const LevelTable& table, const StripPart& part);
// Whole steps; line.zero is the shift where a run has one. importance: of each column, or null.
void round_to_lattice(const LineLanes& line, const LatticeTraits& traits, const float* importance,
                      const StripPart& part);

// Makes weights fit for fitting: NaN becomes 0, magnitudes end at 1e9.
void sanitize(Lanes* x, int64_t columns);
// importance (one per column, nullptr: all 1) relative to its mean, times sqrt(2 mean x² + x²) where asked.
void weigh(const Lanes* x, int64_t columns, const float* importance, bool larger_count_more, Lanes* out);

struct ScaleFit {
  Lanes scale, zero;  // the bias, where biased
};
void fit_affine(const Columns& columns, const AffineSpec& spec, Search search, ScaleFit& out);
void fit_table(const Columns& columns, const LevelTable& table, ScaleKind kind, Search search, Lanes& scale);
struct BlockFit {
  Lanes scale, min;
};
void fit_block(const Columns& columns, const BlockTraits& traits, Search search, BlockFit& out);

struct SuperFit {
  static constexpr int kMostSubs = 16;
  Lanes d, dmin;
  Lanes scale[kMostSubs], min[kMostSubs];  // integers
};
void fit_super(const Columns& columns, const SuperBlockTraits& traits, Search search, SuperFit& out);

struct LatticeFit {
  static constexpr int kMostSubs = 16;
  Lanes d, scale[kMostSubs];  // integers
  Lanes shift[kMostSubs];     // ±1/8; of types that store one
};
void fit_lattice(const Columns& columns, const LatticeTraits& traits, Search search, LatticeFit& out);

}  // namespace pare::lanes
