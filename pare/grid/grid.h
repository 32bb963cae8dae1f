// The families of grids a matrix can lie on, before any matrix lies on them. A grid exists because some file format
// stores it and some kernel multiplies it, so the set is closed: a new family does not compile until every container
// and kernel has answered.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "pare/tensor/matrix.h"

namespace pare {

// How a scale is stored: three floats, a power of two, an E4M3 number without its sign.
enum class ScaleKind : uint8_t { f16, f32, e8m0, ue4m3, bf16 };

// Groups of `group` columns of one row share a scale and an integer zero: value = scale (code - zero).
struct AffineSpec {
  int bits = 4;                      // 2…8
  int64_t group = 128;               // columns; 0: the whole row
  bool symmetric = true;             // zero = 2^(bits-1), not stored
  int lowest_zero = 0;               // 1 where the file stores the zero minus one (GPTQ v1); highest is 2^bits - 1
  ScaleKind scale = ScaleKind::f16;  // a float
  bool biased = false;  // a real bias stored as the scale instead of a zero: value = scale code + bias (MLX)
  int64_t rows = 1;     // that share a scale; 0: all. Others than 1 are symmetric and not biased
  bool operator==(const AffineSpec&) const = default;
};

// GGUF blocks of 32 to 256 columns under one f16 scale, some with an f16 min: value = scale (code - middle) - min.
struct BlockSpec {
  enum class Type : uint8_t { q4_0, q4_1, q5_0, q5_1, q8_0, q2_0, tq1_0, tq2_0 } type = Type::q8_0;
  bool operator==(const BlockSpec&) const = default;
};

// GGUF super-blocks of 256 columns: sub-blocks with small integer scales (and mins) under one (two) f16.
struct SuperBlockSpec {
  enum class Type : uint8_t { q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs } type = Type::q4_k;
  bool operator==(const SuperBlockSpec&) const = default;
};

// Codes name the levels of a fixed table; groups of columns of one row share a scale: value = scale · level[code].
struct CodebookSpec {
  enum class Levels : uint8_t {
    iq1,
    iq2,
    iq3_xxs,
    iq3_s,
    iq4_nl,
    e2m1,
    sign,
    nf4,
    fp4,
    e4m3,
    int8
  } levels = Levels::iq4_nl;  // levels.cpp holds the numbers
  ScaleKind scale = ScaleKind::f16;
  int64_t group = 32;   // columns; 0: the whole row
  int64_t block = 0;    // a multiple of group that divides the columns, where the file wants one; 0: the group
  int64_t rows = 1;     // that share a scale; 0: all
  bool nested = false;  // scales of the matrix are codes themselves (bitsandbytes' double quantization)
  bool global = false;  // stored scales are divided by one f32 of the whole matrix (NVFP4 of compressed-tensors)
  bool operator==(const CodebookSpec&) const = default;
};

// GGUF super-blocks of 256 columns whose codes, four or eight columns at a time, must be a point of a codebook
// (lattice.h): value = d · (2 s + 1) · unit · level, with a small integer s per 16 or 32 columns.
struct LatticeSpec {
  enum class Type : uint8_t { iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s } type = Type::iq2_xs;
  bool operator==(const LatticeSpec&) const = default;
};

using Grid = std::variant<AffineSpec, BlockSpec, SuperBlockSpec, CodebookSpec, LatticeSpec>;

std::span<const Grid> named_grids();    // those whose name says it all: "q4_k", "mxfp4", not "int4-g128"
std::span<const Grid> shared_grids();   // the same: windows share numbers (see prepare()), or there are many levels
std::string name_of(const Grid& grid);  // "int4-g128-sym", "q4_k": as recipes, plans and reports spell it
double bits_per_weight(const Grid& grid, Shape s);  // codes and stored parameters, container overhead excluded
int64_t window_of(const Grid& grid, int64_t cols);  // columns fitted together
// Throws Error when a matrix of this shape cannot lie on the grid (columns that are no multiple of the window, …).
void check_shape(const Grid& grid, Shape s, const std::string& tensor);
bool divides(const Grid& grid, int64_t cols);
int step_of(const Grid& grid);  // fewest columns that are rounded at once: 1 but for lattices

}  // namespace pare
