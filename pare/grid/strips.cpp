// Strips: transposing rows into lanes and back, rounding, and what every fit does first.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pare/grid/strips.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "pare/grid/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pare::lanes::HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // no shuffles: the plain loops below do everything
constexpr int kTile = kLanes + 1;
HWY_INLINE void transpose_4x4(const float*, int64_t, float*, int64_t) {}
HWY_INLINE void store_codes_16x16(const uint8_t*, uint8_t*, int64_t) {}
#else
constexpr int kTile = 4;
using Four = hn::FixedTag<float, 4>;
using Sixteen = hn::FixedTag<uint8_t, 16>;

// Turns four vectors of a row each into four of a column each: two perfect shuffles.
struct Quad {
  hn::Vec<Four> v0, v1, v2, v3;
};
HWY_INLINE Quad shuffled(const Quad& q) {
  const Four d;
  return {hn::InterleaveLower(d, q.v0, q.v2), hn::InterleaveUpper(d, q.v0, q.v2), hn::InterleaveLower(d, q.v1, q.v3),
          hn::InterleaveUpper(d, q.v1, q.v3)};
}
HWY_INLINE Quad transposed(const Quad& q) { return shuffled(shuffled(q)); }

HWY_INLINE void transpose_4x4(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  const Four d;
  const Quad q = transposed({hn::LoadU(d, from), hn::LoadU(d, from + from_stride), hn::LoadU(d, from + 2 * from_stride),
                             hn::LoadU(d, from + 3 * from_stride)});
  hn::StoreU(q.v0, d, to);
  hn::StoreU(q.v1, d, to + to_stride);
  hn::StoreU(q.v2, d, to + 2 * to_stride);
  hn::StoreU(q.v3, d, to + 3 * to_stride);
}

// Sixteen columns of sixteen codes each into rows: four perfect shuffles of sixteen vectors.
HWY_INLINE void store_codes_16x16(const uint8_t* columns, uint8_t* codes, int64_t stride) {
  const Sixteen d;
  uint8_t a[16 * kLanes], b[16 * kLanes];
  const uint8_t* from = columns;
  for (int stage = 0; stage < 4; ++stage) {
    uint8_t* to = stage % 2 ? b : a;
    for (int i = 0; i < 8; ++i) {
      const auto low = hn::LoadU(d, from + i * 16), high = hn::LoadU(d, from + (i + 8) * 16);
      hn::StoreU(hn::InterleaveLower(d, low, high), d, to + 2 * i * 16);
      hn::StoreU(hn::InterleaveUpper(d, low, high), d, to + (2 * i + 1) * 16);
    }
    from = to;
  }
  for (int r = 0; r < kLanes; ++r) hn::StoreU(hn::LoadU(d, from + r * 16), d, codes + r * stride);
}

#endif

void TransposeIn(const float* w, int64_t stride, int rows, int64_t columns, float* lanes) {
  const int64_t whole = columns / kTile * kTile;
  const int quads = rows / kTile * kTile;
  for (int64_t c = 0; c < whole; c += 4)
    for (int r = 0; r < quads; r += 4) transpose_4x4(w + r * stride + c, stride, lanes + c * kLanes + r, kLanes);
  for (int r = 0; r < kLanes; ++r)
    for (int64_t c = r < quads ? whole : 0; c < columns; ++c) lanes[c * kLanes + r] = r < rows ? w[r * stride + c] : 0;
}

void TransposeOut(const float* lanes, int rows, int64_t columns, float* w, int64_t stride) {
  const int64_t whole = columns / kTile * kTile;
  const int quads = rows / kTile * kTile;
  for (int r = 0; r < quads; r += 4)
    for (int64_t c = 0; c < whole; c += 4) transpose_4x4(lanes + c * kLanes + r, kLanes, w + r * stride + c, stride);
  for (int r = 0; r < rows; ++r)
    for (int64_t c = r < quads ? whole : 0; c < columns; ++c) w[r * stride + c] = lanes[c * kLanes + r];
}

HWY_INLINE void store_codes(const uint8_t* columns, int64_t count, int rows, uint8_t* codes, int64_t stride) {
  if (kTile == 4 && count == 16 && rows == kLanes) return store_codes_16x16(columns, codes, stride);
  for (int r = 0; r < rows; ++r)
    for (int64_t c = 0; c < count; ++c) codes[r * stride + c] = columns[c * kLanes + r];
}

// Nearest codes of up to 16 columns into codes (columns x kLanes).
HWY_INLINE void round_columns(const LineLanes& line, int top, float* values, int64_t columns, uint8_t* codes) {
  const F f;
  const hn::Rebind<uint8_t, F> bytes;
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(f)) {
    const V scale = load(line.scale, lane), zero = load(line.zero, lane), min = load(line.min, lane);
    const V inverse = reciprocal(scale), lowest = hn::Neg(zero),
            highest = hn::Sub(number(static_cast<float>(top)), zero);
    for (int64_t c = 0; c < columns; ++c) {
      float* at = values + c * kLanes + lane;
      const V level = clamp(hn::Mul(hn::Add(hn::LoadU(f, at), min), inverse), lowest, highest);
      const V code = hn::Add(hn::Round(level), zero);
      hn::StoreU(hn::Sub(hn::Mul(scale, hn::Sub(code, zero)), min), f, at);
      hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(I(), code)), bytes, codes + c * kLanes + lane);
    }
  }
}

// The same where a table holds the levels.
HWY_INLINE void round_columns_to(const LineLanes& line, const LevelTable& table, float* values, int64_t columns,
                                 uint8_t* codes) {
  const F f;
  const hn::Rebind<uint8_t, F> bytes;
  const TableLevels levels{table};
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(f)) {
    const V scale = load(line.scale, lane), min = load(line.min, lane), inverse = reciprocal(scale);
    for (int64_t c = 0; c < columns; ++c) {
      float* at = values + c * kLanes + lane;
      const auto found = levels.find(hn::Mul(hn::Add(hn::LoadU(f, at), min), inverse));
      hn::StoreU(hn::Sub(hn::Mul(scale, found.level), min), f, at);
      hn::StoreU(hn::DemoteTo(bytes, found.code), bytes, codes + c * kLanes + lane);
    }
  }
}

// Sixteen columns at a time: round(values, columns, codes) fills codes (columns x kLanes).
template <class RoundColumns>
HWY_INLINE void round_part(const StripPart& part, const RoundColumns& round) {
  alignas(64) uint8_t block[16 * kLanes];
  for (int64_t c = 0; c < part.columns; c += 16) {
    const int64_t count = part.columns - c < 16 ? part.columns - c : 16;
    round(part.values + c * kLanes, count, block);
    store_codes(block, count, part.rows, part.codes + c, part.stride);
  }
}

void Round(const LineLanes& line, int top, const StripPart& part) {
  round_part(part, [&](float* values, int64_t columns, uint8_t* codes)
                       HWY_ATTR { round_columns(line, top, values, columns, codes); });
}
void RoundToTable(const LineLanes& line, const LevelTable& table, const StripPart& part) {
  round_part(part, [&](float* values, int64_t columns, uint8_t* codes)
                       HWY_ATTR { round_columns_to(line, table, values, columns, codes); });
}

void Sanitize(Lanes* x, int64_t columns) {
  const V limit = number(1e9f);
  for (int64_t c = 0; c < columns; ++c)
    for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
      const V w = load(x[c], lane);
      store(hn::IfThenElseZero(hn::Eq(w, w), clamp(w, hn::Neg(limit), limit)), x[c], lane);
    }
}

void Weigh(const Lanes* x, int64_t columns, const float* importance, float factor, bool larger_count_more, Lanes* out) {
  for (size_t lane = 0; lane < kLanes; lane += hn::Lanes(F())) {
    V squares = hn::Zero(F());
    if (larger_count_more)
      for (int64_t c = 0; c < columns; ++c) {
        const V w = load(x[c], lane);
        squares = hn::Add(squares, hn::Mul(w, w));
      }
    const V floor = hn::Mul(squares, number(2.0f / static_cast<float>(columns)));
    for (int64_t c = 0; c < columns; ++c) {
      const V w = load(x[c], lane), plain = number(importance ? importance[c] * factor : 1.0f);
      const V counts = larger_count_more ? hn::Mul(plain, hn::Sqrt(hn::Add(floor, hn::Mul(w, w)))) : plain;
      store(counts, out[c], lane);
    }
  }
}

}  // namespace pare::lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

namespace pare::lanes {

HWY_EXPORT(TransposeIn);
HWY_EXPORT(TransposeOut);
HWY_EXPORT(Round);
HWY_EXPORT(RoundToTable);
HWY_EXPORT(Sanitize);
HWY_EXPORT(Weigh);

void transpose_in(const float* w, int64_t stride, int rows, int64_t columns, float* lanes) {
  HWY_DYNAMIC_DISPATCH(TransposeIn)(w, stride, rows, columns, lanes);
}
void transpose_out(const float* lanes, int rows, int64_t columns, float* w, int64_t stride) {
  HWY_DYNAMIC_DISPATCH(TransposeOut)(lanes, rows, columns, w, stride);
}
void round(const LineLanes& line, int top, const StripPart& part) { HWY_DYNAMIC_DISPATCH(Round)(line, top, part); }
void round_to_table(const LineLanes& line, const LevelTable& table, const StripPart& part) {
  HWY_DYNAMIC_DISPATCH(RoundToTable)(line, table, part);
}
void sanitize(Lanes* x, int64_t columns) { HWY_DYNAMIC_DISPATCH(Sanitize)(x, columns); }

void weigh(const Lanes* x, int64_t columns, const float* importance, bool larger_count_more, Lanes* out) {
  double sum = 0;
  for (int64_t c = 0; importance && c < columns; ++c) sum += importance[c];
  const float factor = static_cast<float>(static_cast<double>(columns) / sum);
  // Columns that all count nothing (or NaN) are fitted as if all counted alike.
  const bool usable = importance && std::isnormal(factor);
  HWY_DYNAMIC_DISPATCH(Weigh)(x, columns, usable ? importance : nullptr, factor, larger_count_more, out);
}

}  // namespace pare::lanes

namespace pare {

void load_strip(MatrixView w, Strip& strip) {
  const int64_t rows = w.rows - strip.first_row < strip.rows ? w.rows - strip.first_row : strip.rows;
  lanes::transpose_in(w.row(strip.first_row) + strip.first, w.stride, static_cast<int>(rows), strip.last - strip.first,
                      strip.values);
}
void store_strip(const Strip& strip, float* w, int64_t stride) {
  lanes::transpose_out(strip.values, strip.rows, strip.last - strip.first, w + strip.first_row * stride + strip.first,
                       stride);
}

}  // namespace pare
#endif
