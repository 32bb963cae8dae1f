// Lattices: codes of four or eight columns at a time must be a point of a codebook. A code stays the index of a level,
// as on any grid; which codes may stand together is what these tables say.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "pare/grid/grid.h"
#include "pare/grid/levels.h"

namespace pare {

// Points of `dims` columns; column j of a point has the digit'th of a few magnitudes (of iq1: of -1, 0, 1).
struct LatticeBook {
  static constexpr int kMostPoints = 2048, kMostHalves = 81;

  int dims = 0, digits = 0, points = 0;
  int halves = 0;           // ways to fill one half of the columns: digits^(dims / 2)
  float magnitude[8] = {};  // of each digit
  std::vector<uint8_t> lower,
      upper;                   // per point: its first and second half, a number in base `digits`, first digit lowest
  std::vector<int> begins;     // points with upper half h are [begins[h], begins[h + 1])
  std::vector<float> value;    // points x dims magnitudes
  std::vector<int16_t> point;  // lower + halves * upper -> point, or -1

  int digit(int at, int column) const;
};

struct LatticeTraits {
  enum class Signs : uint8_t {
    free,   // each column its own
    even,   // an even number of minus signs among a step's columns
    shift,  // none: a step's (iq1_s: a run's) levels are all moved by -1/8 or +1/8
  };
  LatticeSpec::Type type;
  std::string_view name;
  double bits_per_weight;
  int64_t sub;  // columns under one sub-scale s: value = d (2 s + 1) unit · level
  int highest_scale;
  float unit;
  int step;  // columns that are chosen together
  Signs signs;
  bool shift_per_run;  // of sub columns, stored as a parameter
  CodebookSpec::Levels levels;

  const LevelTable& table() const { return level_table(levels); }
  const LatticeBook& book() const;
  int subs() const { return static_cast<int>(256 / sub); }
  float multiple(int s) const { return static_cast<float>(2 * s + 1) * unit; }
};
std::span<const LatticeTraits> all_lattices();
const LatticeTraits& traits(const LatticeSpec& spec);

// The point that `dims` codes are, or -1; and the codes of a point. Bit j of `minus` is column j's sign, or any bit set
// means the shift is negative.
int point_of(const LatticeTraits& t, const uint8_t* codes);
uint32_t minus_of(const LatticeTraits& t, const uint8_t* codes, int columns);
void codes_of_point(const LatticeTraits& t, int point, uint32_t minus, uint8_t* codes);
// Whether `step` codes may stand together.
bool holds(const LatticeTraits& t, const uint8_t* codes);

// Up to `most` ways to fill a step, nearest first under plain distance; `x` in units of levels. `shift`: 0 either, or
// the sign of the only one allowed. Returns how many; step codes each.
int nearest_points(const LatticeTraits& t, std::span<const float> x, int shift, int most, uint8_t* codes);

}  // namespace pare
