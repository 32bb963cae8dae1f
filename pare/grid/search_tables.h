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
// Blocks of 16 or 32 columns.
inline constexpr Factors kBlock16Levels = factors(0.70, 1.16, 23), kBlock64Levels = factors(0.93, 1.04, 13),
                         kBlock256Levels = factors(0.98, 1.01, 9);

// Sixteen levels in a table; and the stored scales around the range's that are tried where few can be stored.
inline constexpr Factors kTableLevels = factors(0.75, 1.2, 12), kStoredPowers = factors(0.3, 1.2, 4),
                         kStoredE4M3 = factors(0.6, 1.25, 14);

struct AffineSubs {  // q4_k
  static constexpr bool kMins = true;
  static constexpr int kSubs = 8, kColumns = 32;
  static constexpr float kLowestLevel = 0, kHighestLevel = 15, kLowestScale = 0, kHighestScale = 63;
  // Super-scale candidates: the largest real sub-scale (min) becomes the integer 63 + slack.
  static constexpr float kScaleSlack[] = {-1.05f, -0.7f, -0.35f, 0, 0.175f, 0.35f, 0.525f};
  static constexpr float kMinSlack[] = {-0.5f, 0, 0.5f};
};

struct SymmetricSubs {  // q6_k
  static constexpr bool kMins = false;
  static constexpr int kSubs = 16, kColumns = 16;
  static constexpr float kLowestLevel = -32, kHighestLevel = 31, kLowestScale = -128, kHighestScale = 127;
  static constexpr int kStretches = 4;  // candidates on either side, 1.1 % apart
};

inline constexpr int kRefits = 3;

}  // namespace pare::lanes
