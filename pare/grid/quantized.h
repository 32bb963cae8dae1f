// One matrix on a grid: the contract between solvers, grids, containers and kernels.
//
//   1. fit(window) sees all rows of that window's columns as they are now and makes the window's parameters final,
//      already rounded to the precision in which they are stored.
//   2. round(strip) is allowed once the windows of its columns are fitted: it stores the codes of those columns and
//      replaces the weights by the values that the codes stand for. It may be called again for the same columns.
//   3. Nothing else passes between solver and grid on the way through the columns. Numbers that windows or rows share
//   are
//      fixed by prepare(), once, from the whole matrix.
//
// Solvers that revisit (descent under the Hessian) ask three more questions: nearest / value / set at any time after
// the fit, and parameter() for what is stored besides the codes. Nothing here knows who asks, or where it is written.
#pragma once

#include <span>
#include <vector>

#include "pare/grid/grid.h"

namespace pare {

enum class Search : uint8_t {
  range,  // parameters from the smallest and largest weight
  error,  // least squared error, weighted by importance
};
struct FitHow {
  Search search = Search::error;
  std::span<const float> importance = {};  // one per column of the whole matrix, ≥ 0; empty: all alike
  bool nearest_follows = false;            // codes will be plain nearest: larger weights count more (quality.md §3.2)
};

// Up to kLanes consecutive rows of some consecutive columns, transposed: lane = row, so that grids and solvers
// vectorise across rows and never across a sum. Weight (row, column) is values[(column - first) * kLanes + row -
// first_row].
inline constexpr int kLanes = 16;
struct Strip {
  float* values = nullptr;
  int64_t first_row = 0;
  int rows = 0;                       // 1…kLanes; lanes beyond hold anything finite and are not stored
  int64_t first = 0, last = 0;        // columns [first, last) within one window, multiples of step()
  const float* importance = nullptr;  // of each of these columns, for codes that are chosen together; null: all alike
};

// Families, fulfilled for one matrix. Parameters are stored window-major (windows x rows): lane = row again.
struct Affine {
  AffineSpec spec;      // group resolved: never 0
  Plane<float> scale;   // groups x rows, every value exact in spec.scale, may be negative
  Plane<uint8_t> zero;  // groups x rows; 0 where biased
  Plane<float> bias;    // groups x rows, exact in spec.scale; empty unless biased
};
struct Block {
  BlockSpec spec;
  Plane<float> scale;  // blocks x rows, exact in f16, may be negative
  Plane<float> min;    // the same; empty where the type has none
};
struct SuperBlock {
  static constexpr int64_t kColumns = 256;
  SuperBlockSpec spec;
  Plane<float> d, dmin;  // super-blocks x rows, exact in f16; dmin empty where the type has no mins
  Plane<int8_t> scale;   // sub-blocks x rows: q4_k 0…63 per 32 columns, q6_k -128…127 per 16, …
  Plane<uint8_t> min;    // sub-blocks x rows, as large as scales get; empty where the type has no mins
};
struct Codebook {
  CodebookSpec spec;   // group resolved: never 0
  Plane<float> scale;  // groups x rows, every value exact in spec.scale (where nested or global: as computed)
  // Where nested: scale = map[code] · absmax + offset, an absmax for 256 scales in the order of the matrix, row by row.
  struct Nested {
    static constexpr int64_t kBlock = 256;
    std::vector<uint8_t> codes;  // rows x groups
    std::vector<float> absmax, map;
    float offset = 0;
  } nested;
  float divisor = 1;  // where global: scale = stored scale / divisor
};
struct Lattice {
  LatticeSpec spec;
  Plane<float> d;        // super-blocks x rows, exact in f16
  Plane<uint8_t> scale;  // sub-blocks x rows: the integer s
  Plane<uint8_t> shift;  // iq1_s: runs of 32 x rows, 1 where levels are moved up; else empty
};
using Params = std::variant<Affine, Block, SuperBlock, Codebook, Lattice>;

// One stored parameter of one row's window. All grids are linear in each of them, the codes and others given.
struct Parameter {
  int64_t first = 0, last = 0;  // the columns it moves
  float value = 0;              // as stored now (an integer for sub-scales and mins)
  float lowest = 0, highest = 0;
};

struct Quantized {
  Params params;
  Plane<uint8_t> codes;        // rows x cols, always ≥ 0: signed codes are stored plus their middle
  std::vector<int32_t> order;  // column c holds the original column order[c]; empty: in place

  Quantized() = default;
  Quantized(const Grid& grid, Shape shape);  // throws Error as check_shape

  Shape shape() const { return codes.shape(); }
  Grid grid() const;
  int64_t window() const;  // columns per window; the last one may be shorter only where the family allows it
  int64_t windows() const;
  int step() const;  // fewest columns that round() takes at once: 1 for every scalar grid

  // Once, before the first fit, with the whole matrix as it is then: fixes what windows or rows share (scales of
  // several rows, a scale of scales). Grids without such numbers do nothing.
  void prepare(MatrixView w);

  // `w` is the whole matrix (rows x cols) as it is now; parallel over rows.
  void fit(int64_t window, MatrixView w, const FitHow& how);
  // The same for the rows of one strip that holds exactly one window: the way to fit and round in one pass.
  void fit(const Strip& window, const FitHow& how);
  void round(const Strip& strip);

  // Where codes are chosen together: the nearest of those that may stand beside the others of the step.
  uint8_t nearest(int64_t row, int64_t col, float x) const;
  float value(int64_t row, int64_t col, uint8_t code) const;
  float value(int64_t row, int64_t col) const { return value(row, col, codes(row, col)); }
  void set(int64_t row, int64_t col, uint8_t code) { codes(row, col) = code; }
  // Up to out.size() / step() ways to fill step() columns with codes whose values lie closest to `values`, nearest
  // first, step() codes each; returns how many.
  int candidates(int64_t row, int64_t col, std::span<const float> values, std::span<uint8_t> out) const;

  // What a row stores for a window besides codes: index 0 … parameters() - 1.
  int parameters() const;
  Parameter parameter(int64_t row, int64_t window, int index) const;
  // Derivative of the values of columns [parameter.first, parameter.last) by the parameter, at the present codes.
  void derivative(int64_t row, int64_t window, int index, std::span<float> out) const;
  float rounded(int index, float x) const;                              // to what can be stored
  void set_parameter(int64_t row, int64_t window, int index, float x);  // x as given by rounded()
};

// The values of columns in their original places.
Matrix dequantize(const Quantized& q);
// Values of rows [first, last) into out (row-major, q.shape().cols each), original column places.
void dequantize_rows(const Quantized& q, int64_t first, int64_t last, float* out);

// Fills a strip from a row-major matrix (rows beyond the end become 0) and writes it back.
void load_strip(MatrixView w, Strip& strip);
void store_strip(const Strip& strip, float* w, int64_t stride);

}  // namespace pare
