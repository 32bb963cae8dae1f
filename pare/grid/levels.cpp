#include "pare/grid/levels.h"

#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "pare/base/float_formats.h"

namespace pare {
namespace {

constexpr LevelTable make_table(std::string_view name, std::initializer_list<float> levels) {
  LevelTable t{.name = name, .count = static_cast<int>(levels.size()), .span = 1};
  while (t.span < t.count) t.span *= 2;
  int at = 0;
  for (const float level : levels) t.level[at++] = level;
  for (int i = 0; i < t.span - 1; ++i) {
    const bool real = i + 1 < t.count;
    t.above[i] = real ? (t.level[i] + t.level[i + 1]) / 2 : std::numeric_limits<float>::infinity();
    // Of equal levels the last is taken: the positive zero.
    if (real && i > 0 && t.level[i] == t.level[i + 1]) t.above[i] = t.above[i - 1];
  }
  return t;
}

// In the order of CodebookSpec::Levels. Source: formats.md §3.3; e2m1 is the OCP format, -0 before +0.
constexpr LevelTable kTables[] = {
    make_table("iq1", {-1.125f, -0.875f, -0.125f, 0.125f, 0.875f, 1.125f}),
    make_table("iq2", {-43, -25, -8, 8, 25, 43}),
    make_table("iq3_xxs", {-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62}),
    make_table("iq3_s", {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15}),
    make_table("iq4_nl", {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}),
    make_table("e2m1", {-6, -4, -3, -2, -1.5f, -1, -0.5f, 0, 0, 0.5f, 1, 1.5f, 2, 3, 4, 6}),
    make_table("sign", {-1, 1}),
};

float to_power_of_two(float x) {
  if (x < 0x1.8p-127f) return 0x1p-127f;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(x) + 0x400000u) & 0x7F800000u);
}

// Three bits of mantissa, subnormal below 2^-6.
float to_e4m3(float x) {
  if (x < 0x1p-6f) return std::nearbyint(x * 512) / 512;
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7FFFFu + ((bits >> 20) & 1u)) & 0xFFF00000u);
}

}  // namespace

const LevelTable& level_table(CodebookSpec::Levels levels) { return kTables[static_cast<size_t>(levels)]; }

int LevelTable::bits() const { return std::countr_zero(static_cast<unsigned>(span)); }

float stored_scale(ScaleKind kind, float x) {
  const float lowest = lowest_scale(kind), highest = highest_scale(kind);
  const float inside = x > lowest ? (x < highest ? x : highest) : lowest;
  switch (kind) {
    case ScaleKind::f16:
      return round_to_f16(inside);
    case ScaleKind::f32:
      return inside;
    case ScaleKind::e8m0:
      return to_power_of_two(inside);
    case ScaleKind::ue4m3:
      break;
  }
  return to_e4m3(inside);
}

float lowest_scale(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::f16:
      return -65504;
    case ScaleKind::f32:
      return -std::numeric_limits<float>::max();
    case ScaleKind::e8m0:
      return 0x1p-127f;
    case ScaleKind::ue4m3:
      break;
  }
  return 0;
}
float highest_scale(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::f16:
      return 65504;
    case ScaleKind::f32:
      return std::numeric_limits<float>::max();
    case ScaleKind::e8m0:
      return 0x1p127f;
    case ScaleKind::ue4m3:
      break;
  }
  return 448;
}
int scale_bits(ScaleKind kind) { return kind == ScaleKind::f32 ? 32 : kind == ScaleKind::f16 ? 16 : 8; }

}  // namespace pare
