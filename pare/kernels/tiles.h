// The one layout of quantized weights, lane = row: kernels of every kind read it, and it is about as large as the file.
//
// A strip is 16 rows; strips follow one another, each whole lines of 64 bytes (the last is filled up with rows of
// zeros). Within a strip come the parameters, then the codes, so that a product reads two sequential streams:
//
//   strip   | scale: f16 (f32 where lines) x 16 per window | dmin: f16 x 16 per window | zero or sub-scale: u8 x 16 per
//   run |
//           | sub-min: u8 x 16 per run | up to 63 bytes to the next line | units |
//   unit    32 columns: the bits of a code are cut into planes of 8, 4, 2 and 1 bits (5 bits: 4 + 1), highest plane
//           lowest in the code; a plane of p bits takes p lines, dword = row
//   line    16 dwords of 4 bytes; byte b of every dword belongs to a column that is b modulo 4
//
//   column 4 i + b of a unit (i = 0…7), byte b, in the plane of
//     8 bits: line i               4 bits: line i % 4, bits 4 (i / 4)…
//     2 bits: line i / 4, bits 2 (i % 4)…                               1 bit: line 0, bit i
//
// Grids without products of their own are kept as lines (grid/line.h): a scale and a min of f32 per window.
//
// So `line & 0x0F0F0F0F` is four consecutive codes of 16 rows, which is what integer dot products want too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pare/grid/line.h"

namespace pare {

inline constexpr int64_t kUnit = 32;  // columns
inline constexpr int64_t kLine = 64;  // bytes: kLanes dwords

enum class TileKind : uint8_t {
  affine,         // scale (code - zero); zero fixed, or one per window
  sub_mins,       // d sub_scale code - dmin sub_min            (q4_k)
  signed_scales,  // d sub_scale (code - middle), signed scales (q6_k)
  lines,          // scale level - min, any grid
};

struct TileLayout {
  Shape shape;
  TileKind kind = TileKind::affine;
  int bits = 0;
  int fixed_zero = -1;                // the same for all; -1: stored
  const LevelTable* table = nullptr;  // of lines; null: levels are code - fixed_zero
  bool mins = false;                  // dmin, or the min of lines, is stored
  int64_t window = 0;                 // columns under one scale or d
  int64_t run = 0;                    // columns under one sub-scale and sub-min; 0: none stored
  int64_t windows = 0, runs = 0, units = 0, strips = 0;
  int64_t dmin_at = 0, sub_at = 0, min_at = 0, codes_at = 0, strip_bytes = 0;  // within a strip; scales are at 0

  int64_t unit_bytes() const { return bits * kLine; }
  int64_t number_bytes() const { return kLanes * (kind == TileKind::lines ? 4 : 2); }  // of one scale of a strip
  int64_t bytes() const { return strips * strip_bytes; }
};
TileLayout tile_layout(const Grid& grid, Shape shape);

// Lines of memory, on huge pages where there are many.
class Lines {
 public:
  Lines() = default;
  explicit Lines(int64_t bytes);
  std::byte* data() { return memory_.get(); }
  const std::byte* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
};

struct Tiles {
  TileLayout layout;
  std::vector<int32_t> order;  // as Quantized::order
  Lines memory;

  const std::byte* strip(int64_t s) const { return memory.data() + s * layout.strip_bytes; }
  std::byte* strip(int64_t s) { return memory.data() + s * layout.strip_bytes; }
};

// Writes the strips of rows [first_row, first_row + q.shape().rows); first_row is a multiple of 16. Parallel.
void pack_rows(const Quantized& q, int64_t first_row, Tiles& tiles);

// The values of one unit's columns, (column - first) * kLanes + lane, in plain C++: as dequantize_rows, bit for bit.
void plain_unit(const Tiles& tiles, int64_t strip, int64_t unit, float* values);

}  // namespace pare
