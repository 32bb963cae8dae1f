#include "pare/grid/levels.h"

#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "pare/base/float_formats.h"

namespace pare {
namespace {

// What lies between neighbours goes to the nearer, the middle to the lower.
constexpr void set_edges(LevelTable& t) {
  for (int i = 0; i < t.span - 1; ++i) {
    const bool real = i + 1 < t.count;
    t.above[i] = real ? (t.level[i] + t.level[i + 1]) / 2 : std::numeric_limits<float>::infinity();
    // Of equal levels the last is taken: the positive zero.
    if (real && i > 0 && t.level[i] == t.level[i + 1]) t.above[i] = t.above[i - 1];
  }
}

constexpr LevelTable make_table(std::string_view name, std::initializer_list<float> levels) {
  LevelTable t{.name = name, .count = static_cast<int>(levels.size()), .span = 1};
  while (t.span < t.count) t.span *= 2;
  int at = 0;
  for (const float level : levels) t.level[at++] = level;
  set_edges(t);
  return t;
}
// The 254 numbers of E4M3, -0 before +0: bit patterns 0xFE down to 0x80, then 0 up to 0x7E.
constexpr LevelTable make_e4m3() {
  LevelTable t{.name = "e4m3", .count = 254, .span = 256};
  for (int i = 0; i < 127; ++i) {
    const int exponent = i >> 3, mantissa = i & 7;
    float x = static_cast<float>(exponent == 0 ? mantissa : 8 + mantissa) / 512;
    for (int e = 1; e < exponent; ++e) x *= 2;
    t.level[126 - i] = -x;
    t.level[127 + i] = x;
  }
  t.level[126] = 0;
  set_edges(t);
  return t;
}

// Bytes from -127 to 127, as 127ths.
constexpr LevelTable make_int8() {
  LevelTable t{.name = "int8", .count = 255, .span = 256};
  for (int i = 0; i < 255; ++i) t.level[i] = static_cast<float>(i - 127) / 127;
  set_edges(t);
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
    // bitsandbytes, formats.md §1.1. fp4: 12ths of 0, 1/16, 2, 3, 4, 6, 8 and 12.
    make_table("nf4", {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
                       -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
                       0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                       0.7229568362236023f, 1.0f}),
    make_table("fp4", {-1, -8 / 12.0f, -0.5f, -4 / 12.0f, -0.25f, -2 / 12.0f, -0.0625f / 12, 0, 0, 0.0625f / 12,
                       2 / 12.0f, 0.25f, 4 / 12.0f, 0.5f, 8 / 12.0f, 1}),
    make_e4m3(),
    make_int8(),
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
    case ScaleKind::bf16:
      return bf16_to_f32(f32_to_bf16(inside));
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
    case ScaleKind::bf16:
      return -0x1.FEp127f;
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
    case ScaleKind::bf16:
      return 0x1.FEp127f;
    case ScaleKind::e8m0:
      return 0x1p127f;
    case ScaleKind::ue4m3:
      break;
  }
  return 448;
}
int scale_bits(ScaleKind kind) {
  if (kind == ScaleKind::f32) return 32;
  return kind == ScaleKind::f16 || kind == ScaleKind::bf16 ? 16 : 8;
}

}  // namespace pare
