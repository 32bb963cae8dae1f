// What the least-error searches try, as data (design/quality.md §3.2), and the shapes of super-blocks. Included by the
// vector kernels: plain constants only.
#pragma once

namespace pare::lanes {

// Starting points of a search: 1 / scale = factor · (lowest level / largest weight), factors in geometric steps.
struct Factors {
  float first = 1;
  int count = 0;
  float ratio = 1;
};

constexpr Factors factors(double first, double last, int count) {
  double low = 1, high = last / first;  // the root by bisection: the same on every machine
  for (int i = 0; i < 60; ++i) {
    const double ratio = (low + high) / 2;
    double product = 1;
    for (int k = 1; k < count; ++k) product *= ratio;
    (product > last / first ? high : low) = ratio;
  }
  return {static_cast<float>(first), count, static_cast<float>(low)};
}

// Groups of an int-affine grid by bits, 2 … 8. Fewer levels gain more from cutting off the extremes, and groups of
// hundreds of columns hold rarer extremes than the blocks below.
inline constexpr Factors kSymmetricGroup[] = {factors(0.35, 4.0, 24), factors(0.55, 3.0, 24), factors(0.70, 2.4, 24),
                                              factors(0.84, 1.9, 24), factors(0.93, 1.6, 24), factors(0.965, 1.4, 24),
                                              factors(0.98, 1.25, 24)};
// The same for zero points, for each way of cutting: both ends, the upper, the lower.
inline constexpr Factors kZeroPointGroup[] = {factors(1, 4.0, 14), factors(1, 3.0, 14), factors(1, 2.4, 14),
                                              factors(1, 1.9, 14), factors(1, 1.6, 14), factors(1, 1.4, 14),
                                              factors(1, 1.25, 14)};
// Blocks, by the number of levels: ternary ones have 256 columns, those of four levels 64, others 16 or 32.
inline constexpr Factors kBlock3Levels = factors(0.8, 4.0, 16), kBlock4Levels = factors(0.5, 3.2, 19),
                         kBlock8Levels = factors(0.55, 1.4, 21), kBlock16Levels = factors(0.70, 1.16, 23),
                         kBlock32Levels = factors(0.86, 1.08, 17), kBlock64Levels = factors(0.93, 1.04, 13),
                         kBlock256Levels = factors(0.98, 1.01, 9);
constexpr const Factors& factors_of_levels(int levels) {
  return levels <= 3    ? kBlock3Levels
         : levels <= 4  ? kBlock4Levels
         : levels <= 8  ? kBlock8Levels
         : levels <= 16 ? kBlock16Levels
         : levels <= 32 ? kBlock32Levels
         : levels <= 64 ? kBlock64Levels
                        : kBlock256Levels;
}

// Sixteen levels in a table; and the stored scales around the range's that are tried where few can be stored.
inline constexpr Factors kTableLevels = factors(0.75, 1.2, 12), kStoredPowers = factors(0.3, 1.2, 4),
                         kStoredE4M3 = factors(0.6, 1.25, 14);

// Lattices by the number of levels: factors of the scale under which the largest weight is the farthest level; and of
// the super-scale.
inline constexpr Factors kLatticeOfThree = factors(0.35, 1.1, 8), kLatticeOfSix = factors(0.5, 1.6, 12),
                         kLatticeOfSixteen = factors(0.75, 1.35, 11);
inline constexpr float kLatticeStretches[] = {1.0f, 0.96f, 1.04f};

// Searches of a scale and a min: levels 0 … top are stretched over the range as if there were top + first + k step.
struct Starts {
  float first;
  int count;
  float step;
};
inline constexpr Starts kSubStarts{-1, 21, 0.095f}, kBlockStarts{-2.5f, 45, 0.085f};

// Super-scale candidates: the largest real sub-scale (min) becomes the largest integer + slack; without mins it is
// stretched so many times 1.1 % either way.
inline constexpr float kScaleSlack[] = {-1.05f, -0.7f, -0.35f, 0, 0.175f, 0.35f, 0.525f};
inline constexpr float kMinSlack[] = {-0.5f, 0, 0.5f};
inline constexpr int kStretches = 4;
inline constexpr int kRefits = 3;

}  // namespace pare::lanes
