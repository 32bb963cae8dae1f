#include "pare/kernels/tiles.h"

#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <new>

#include "pare/base/float_formats.h"
#include "pare/base/threads.h"

namespace pare {
namespace {

constexpr int64_t kHalves = kLanes * 2, kFloats = kLanes * 4, kBytes = kLanes;  // of one number per row
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

struct Family {
  TileLayout& t;
  void operator()(const AffineSpec& s) const {
    t.bits = s.bits;
    t.window = s.group > 0 ? std::min(s.group, t.shape.cols) : t.shape.cols;
    t.fixed_zero = s.biased ? 0 : s.symmetric ? 1 << (s.bits - 1) : -1;
    t.run = t.fixed_zero < 0 ? t.window : 0;
    t.mins = s.biased;
    if (s.biased || s.scale != ScaleKind::f16) t.kind = TileKind::lines;
  }
  void operator()(const BlockSpec& s) const {
    if (has_mins(s)) return lines(s);
    set_bits(s);
    t.window = window_of(s, t.shape.cols);
    t.fixed_zero = middle_of(s);
  }
  void operator()(const SuperBlockSpec& s) const {
    const bool mins = s.type == SuperBlockSpec::Type::q4_k;
    if (!mins && s.type != SuperBlockSpec::Type::q6_k) return lines(s);
    t.kind = mins ? TileKind::sub_mins : TileKind::signed_scales;
    set_bits(s);
    t.window = SuperBlock::kColumns;
    t.fixed_zero = middle_of(s);
    t.run = line_columns(s, t.shape.cols);
    t.mins = mins;
  }
  void operator()(const CodebookSpec& s) const { lines(s); }
  void operator()(const LatticeSpec& s) const { lines(s); }

 private:
  void set_bits(const Grid& grid) const {
    while (1 << t.bits < codes_of(grid)) ++t.bits;
  }
  void lines(const Grid& grid) const {
    t.kind = TileKind::lines;
    set_bits(grid);
    t.table = table_of(grid);
    t.fixed_zero = middle_of(grid);
    t.window = line_columns(grid, t.shape.cols);
    t.mins = has_mins(grid);
  }
};

// The strip being packed: 16 rows from `row` of the source, `rows` of them real.
struct Target {
  const TileLayout& t;
  std::byte* strip;
  int64_t row;
  int64_t rows;
};

void store_halves(const Plane<float>& values, const Target& to, std::byte* out) {
  for (int64_t g = 0; g < values.rows(); ++g)
    for (int64_t lane = 0; lane < to.rows; ++lane) {
      const uint16_t half = f32_to_f16(values(g, to.row + lane));
      std::memcpy(out + g * kHalves + lane * 2, &half, 2);
    }
}

void store_lines(const Quantized& q, const Target& to) {
  for (int64_t g = 0; g < to.t.windows; ++g)
    for (int64_t lane = 0; lane < to.rows; ++lane) {
      const Line line = line_at(q.params, to.row + lane, g * to.t.window);
      std::memcpy(to.strip + g * kFloats + lane * 4, &line.scale, 4);
      if (to.t.mins) std::memcpy(to.strip + to.t.dmin_at + g * kFloats + lane * 4, &line.min, 4);
      if (to.t.run > 0) to.strip[to.t.sub_at + g * kBytes + lane] = static_cast<std::byte>(line.zero);
    }
}

template <class T>
void store_bytes(const Plane<T>& values, const Target& to, std::byte* out) {
  for (int64_t g = 0; g < values.rows(); ++g)
    if (to.rows > 0) std::memcpy(out + g * kBytes, values.row(g) + to.row, static_cast<size_t>(to.rows));
}

struct StoreParams {
  const Target& to;
  void operator()(const Affine& p) const {
    store_halves(p.scale, to, to.strip);
    if (to.t.run > 0) store_bytes(p.zero, to, to.strip + to.t.sub_at);
  }
  void operator()(const Block& p) const { store_halves(p.scale, to, to.strip); }
  void operator()(const SuperBlock& p) const {
    store_halves(p.d, to, to.strip);
    store_bytes(p.scale, to, to.strip + to.t.sub_at);
    if (to.t.kind != TileKind::sub_mins) return;
    store_halves(p.dmin, to, to.strip + to.t.dmin_at);
    store_bytes(p.min, to, to.strip + to.t.min_at);
  }
  template <class Params>
  void operator()(const Params&) const {}  // lines
};

// Eight dwords: bytes 4 i … 4 i + 3 are the codes of those columns. Compilers turn it into a few vector operations.
using UnitCodes = uint32_t[8];

// Appends one plane: the `p` bits from `shift` of every code, into dword `lane` of each of p lines.
template <int p>
std::byte* store_plane(const UnitCodes& codes, int shift, int64_t lane, std::byte* lines) {
  constexpr int kParts = 8 / p;  // columns that share a byte
  constexpr uint32_t kMask = 0x01010101u * ((1u << p) - 1);
  for (int line = 0; line < p; ++line) {
    uint32_t dword = 0;
    for (int part = 0; part < kParts; ++part) {
      const int i = p == 4 ? line + 4 * part : line * kParts + part;
      dword |= ((codes[i] >> shift) & kMask) << (p * part);
    }
    std::memcpy(lines + line * kLine + lane * 4, &dword, 4);
  }
  return lines + p * kLine;
}

void store_unit(int bits, const UnitCodes& codes, int64_t lane, std::byte* unit) {
  int shift = 0;
  if (bits & 8) unit = store_plane<8>(codes, shift, lane, unit);
  if (bits & 4) unit = store_plane<4>(codes, shift, lane, unit), shift += 4;
  if (bits & 2) unit = store_plane<2>(codes, shift, lane, unit), shift += 2;
  if (bits & 1) store_plane<1>(codes, shift, lane, unit);
}

// Columns beyond the end get the code of value zero: their activations are zero as well.
void store_codes(const Quantized& q, const Target& to) {
  const int64_t cols = to.t.shape.cols;
  for (int64_t lane = 0; lane < to.rows; ++lane) {
    const uint8_t* row = q.codes.row(to.row + lane);
    std::byte* unit = to.strip + to.t.codes_at;
    for (int64_t c = 0; c < cols; c += kUnit, unit += to.t.unit_bytes()) {
      UnitCodes codes = {};
      std::memcpy(codes, row + c, static_cast<size_t>(std::min(kUnit, cols - c)));
      store_unit(to.t.bits, codes, lane, unit);
    }
  }
}

int plain_code(int bits, const std::byte* unit, int64_t column, int64_t lane) {
  const int64_t i = column / 4, b = column % 4;
  int code = 0, shift = 0;
  for (const int p : {8, 4, 2, 1}) {
    if (!(bits & p)) continue;
    const int64_t parts = 8 / p;
    const int64_t line = p == 4 ? i % 4 : i / parts, part = p == 4 ? i / 4 : i % parts;
    const auto byte = std::to_integer<int>(unit[line * kLine + lane * 4 + b]);
    code |= ((byte >> (p * part)) & ((1 << p) - 1)) << shift;
    unit += p * kLine;
    shift += p;
  }
  return code;
}

float half_at(const std::byte* from, int64_t index, int64_t lane) {
  uint16_t half;
  std::memcpy(&half, from + index * kHalves + lane * 2, 2);
  return f16_to_f32(half);
}
float float_at(const std::byte* from, int64_t index, int64_t lane) {
  float x;
  std::memcpy(&x, from + index * kFloats + lane * 4, 4);
  return x;
}
int byte_at(const std::byte* from, int64_t index, int64_t lane) {
  return std::to_integer<int>(from[index * kBytes + lane]);
}

}  // namespace

TileLayout tile_layout(const Grid& grid, Shape shape) {
  TileLayout t;
  t.shape = shape;
  std::visit(Family{t}, grid);
  t.windows = t.window > 0 ? divide_up(shape.cols, t.window) : 0;
  t.runs = t.run > 0 ? divide_up(shape.cols, t.run) : 0;
  t.units = divide_up(shape.cols, kUnit);
  t.strips = divide_up(shape.rows, kLanes);
  t.dmin_at = t.windows * t.number_bytes();
  t.sub_at = t.dmin_at + (t.mins ? t.windows * t.number_bytes() : 0);
  t.min_at = t.sub_at + t.runs * kBytes;
  t.codes_at = round_up(t.min_at + (t.mins ? t.runs * kBytes : 0), kLine);
  t.strip_bytes = t.codes_at + t.units * t.unit_bytes();
  return t;
}

Lines::Lines(int64_t bytes) {
  if (bytes == 0) return;
  const bool huge = bytes >= 2 * kHugePage;
  const auto size = static_cast<size_t>(round_up(bytes, kLine));
  void* p = std::aligned_alloc(static_cast<size_t>(huge ? kHugePage : kLine), size);
  if (!p) throw std::bad_alloc();
  memory_.reset(static_cast<std::byte*>(p));
  // Whole huge pages only: the rest would be paid for and not used. A refusal costs nothing but speed.
  if (huge) static_cast<void>(::madvise(p, size / kHugePage * kHugePage, MADV_HUGEPAGE));
}
void Lines::Free::operator()(std::byte* p) const { std::free(p); }

void pack_rows(const Quantized& q, int64_t first_row, Tiles& tiles) {
  const TileLayout& t = tiles.layout;
  const int64_t rows = q.shape().rows;
  assert(first_row % kLanes == 0 && first_row + rows <= t.shape.rows && q.shape().cols == t.shape.cols);
  assert(rows % kLanes == 0 || first_row + rows == t.shape.rows);
  parallel_for(divide_up(rows, kLanes), [&](int64_t s) {
    std::byte* strip = tiles.strip(first_row / kLanes + s);
    std::memset(strip, 0, static_cast<size_t>(t.strip_bytes));
    const Target to{t, strip, s * kLanes, std::min<int64_t>(kLanes, rows - s * kLanes)};
    if (t.kind == TileKind::lines)
      store_lines(q, to);
    else
      std::visit(StoreParams{to}, q.params);
    store_codes(q, to);
  });
}

void plain_unit(const Tiles& tiles, int64_t s, int64_t u, float* values) {
  const TileLayout& t = tiles.layout;
  const std::byte *strip = tiles.strip(s), *unit = strip + t.codes_at + u * t.unit_bytes();
  const int64_t columns = std::min(kUnit, t.shape.cols - u * kUnit);
  std::fill_n(values, kUnit * kLanes, 0.0f);
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t col = u * kUnit + c, window = col / t.window, run = t.run > 0 ? col / t.run : 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int code = plain_code(t.bits, unit, c, lane);
      const int sub = t.run > 0 ? byte_at(strip + t.sub_at, run, lane) : 0;
      float scale = t.kind == TileKind::lines ? float_at(strip, window, lane) : half_at(strip, window, lane), min = 0;
      int zero = t.fixed_zero;
      switch (t.kind) {
        case TileKind::affine:
          if (zero < 0) zero = sub;
          break;
        case TileKind::sub_mins:
          scale *= static_cast<float>(sub);
          min = half_at(strip + t.dmin_at, window, lane) * static_cast<float>(byte_at(strip + t.min_at, run, lane));
          break;
        case TileKind::signed_scales:
          scale *= static_cast<float>(static_cast<int8_t>(sub));
          break;
        case TileKind::lines:
          if (zero < 0) zero = sub;
          if (t.mins) min = float_at(strip + t.dmin_at, window, lane);
          break;
      }
      const float level = t.table ? t.table->level[code] : static_cast<float>(code - zero);
      values[c * kLanes + lane] = scale * level - min;
    }
  }
}

}  // namespace pare
