// What a row stores for a window besides its codes, one number at a time: for solvers that revisit.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "pare/base/float_formats.h"
#include "pare/grid/families.h"

namespace pare {
namespace {

// Super-blocks order their parameters d, (dmin,) sub-scales, (mins).
struct SuperIndex {
  enum { d, dmin, scale, min } kind;
  int64_t sub = 0;  // within the super-block
};
SuperIndex super_index(const SuperBlock& p, int index) {
  const SuperBlockTraits& t = traits(p.spec);
  const int supers = t.mins ? 2 : 1, subs = static_cast<int>(SuperBlock::kColumns / t.sub);
  if (index == 0) return {SuperIndex::d};
  if (index < supers) return {SuperIndex::dmin};
  if (index < supers + subs) return {SuperIndex::scale, index - supers};
  return {SuperIndex::min, index - supers - subs};
}

// Scales that rows share, and scales that are codes, cannot be moved one by one: nothing to revisit.
int count(const Affine& p) { return p.spec.rows != 1 ? 0 : p.spec.symmetric ? 1 : 2; }
int count(const Block& p) { return traits(p.spec).mins ? 2 : 1; }
int count(const SuperBlock& p) {
  const SuperBlockTraits& t = traits(p.spec);
  return (t.mins ? 2 : 1) * static_cast<int>(1 + SuperBlock::kColumns / t.sub);
}

int count(const Codebook& p) { return p.spec.rows == 1 && !p.spec.nested && !p.spec.global; }
int count(const Lattice& p) { return 1 + traits(p.spec).subs(); }

Parameter get(const Affine& p, int64_t row, int64_t window, int index) {
  const int64_t first = window * p.spec.group, last = first + p.spec.group;
  const float most = highest_scale(p.spec.scale);
  if (index == 0)
    return {first, last, p.scale(window, row), p.spec.scale == ScaleKind::f16 ? kSmallestF16 : kSmallestScale, most};
  if (p.spec.biased) return {first, last, p.bias(window, row), -most, most};
  return {first, last, static_cast<float>(p.zero(window, row)), static_cast<float>(p.spec.lowest_zero),
          static_cast<float>((1 << p.spec.bits) - 1)};
}
Parameter get(const Block& p, int64_t row, int64_t window, int index) {
  const int64_t columns = traits(p.spec).columns, first = window * columns;
  return {first, first + columns, (index == 0 ? p.scale : p.min)(window, row), -kLargestF16, kLargestF16};
}
Parameter get(const SuperBlock& p, int64_t row, int64_t window, int index) {
  const SuperBlockTraits& t = traits(p.spec);
  const int64_t first = window * SuperBlock::kColumns, last = first + SuperBlock::kColumns;
  const auto [kind, sub] = super_index(p, index);
  const int64_t first_sub = first + sub * t.sub, plane_row = window * (SuperBlock::kColumns / t.sub) + sub;
  switch (kind) {
    case SuperIndex::d:
      return {first, last, p.d(window, row), t.mins ? 0 : -kLargestF16, kLargestF16};
    case SuperIndex::dmin:
      return {first, last, p.dmin(window, row), 0, kLargestF16};
    case SuperIndex::scale:
      return {first_sub, first_sub + t.sub, static_cast<float>(p.scale(plane_row, row)),
              static_cast<float>(t.lowest_scale), static_cast<float>(t.highest_scale)};
    case SuperIndex::min:
      break;
  }
  return {first_sub, first_sub + t.sub, static_cast<float>(p.min(plane_row, row)), 0,
          static_cast<float>(t.highest_scale)};
}

Parameter get(const Codebook& p, int64_t row, int64_t window, int) {
  const int64_t first = window * p.spec.group;
  return {first, first + p.spec.group, p.scale(window, row), lowest_scale(p.spec.scale), highest_scale(p.spec.scale)};
}

Parameter get(const Lattice& p, int64_t row, int64_t window, int index) {
  const LatticeTraits& t = traits(p.spec);
  const int64_t first = window * 256;
  if (index == 0) return {first, first + 256, p.d(window, row), -kLargestF16, kLargestF16};
  const int64_t sub = window * t.subs() + index - 1;
  return {sub * t.sub, (sub + 1) * t.sub, static_cast<float>(p.scale(sub, row)), 0,
          static_cast<float>(t.highest_scale)};
}

void put(Affine& p, int64_t row, int64_t window, int index, float x) {
  if (index == 0)
    p.scale(window, row) = x;
  else if (p.spec.biased)
    p.bias(window, row) = x;
  else
    p.zero(window, row) = static_cast<uint8_t>(x);
}
void put(Block& p, int64_t row, int64_t window, int index, float x) { (index == 0 ? p.scale : p.min)(window, row) = x; }
void put(SuperBlock& p, int64_t row, int64_t window, int index, float x) {
  const auto [kind, sub] = super_index(p, index);
  const int64_t plane_row = window * (SuperBlock::kColumns / traits(p.spec).sub) + sub;
  switch (kind) {
    case SuperIndex::d:
      p.d(window, row) = x;
      break;
    case SuperIndex::dmin:
      p.dmin(window, row) = x;
      break;
    case SuperIndex::scale:
      p.scale(plane_row, row) = static_cast<int8_t>(x);
      break;
    case SuperIndex::min:
      p.min(plane_row, row) = static_cast<uint8_t>(x);
      break;
  }
}

void put(Codebook& p, int64_t row, int64_t window, int, float x) { p.scale(window, row) = x; }

void put(Lattice& p, int64_t row, int64_t window, int index, float x) {
  if (index == 0)
    p.d(window, row) = x;
  else
    p.scale(window * traits(p.spec).subs() + index - 1, row) = static_cast<uint8_t>(x);
}

// A number within the parameter's range, as it can be stored.
float stored(const Affine& p, int index, float x) {
  return index == 1 && !p.spec.biased ? std::nearbyint(x) : stored_scale(p.spec.scale, x);
}
float stored(const Block&, int, float x) { return round_to_f16(x); }
float stored(const SuperBlock& p, int index, float x) {
  const auto kind = super_index(p, index).kind;
  return kind == SuperIndex::scale || kind == SuperIndex::min ? std::nearbyint(x) : round_to_f16(x);
}
float stored(const Lattice&, int index, float x) { return index == 0 ? round_to_f16(x) : std::nearbyint(x); }
float stored(const Codebook& p, int, float x) { return stored_scale(p.spec.scale, x); }

// Derivative of one value, given its level: value = scale · level - min.
struct Slope {
  float per_level = 0, constant = 0;  // times the level, plus
};
Slope slope(const Affine& p, int64_t row, int64_t col, int index) {
  if (index == 0) return {1, 0};
  if (p.spec.biased) return {0, 1};
  return {0, -p.scale(col / p.spec.group, row)};
}
Slope slope(const Block&, int64_t, int64_t, int index) { return index == 0 ? Slope{1, 0} : Slope{0, -1}; }
Slope slope(const Lattice& p, int64_t row, int64_t col, int index) {
  const LatticeTraits& t = traits(p.spec);
  if (index == 0) return {t.multiple(p.scale(col / t.sub, row)), 0};
  return {2 * t.unit * p.d(col / 256, row), 0};
}
Slope slope(const Codebook&, int64_t, int64_t, int) { return {1, 0}; }
Slope slope(const SuperBlock& p, int64_t row, int64_t col, int index) {
  const int64_t block = col / SuperBlock::kColumns, sub = col / traits(p.spec).sub;
  switch (super_index(p, index).kind) {
    case SuperIndex::d:
      return {static_cast<float>(p.scale(sub, row)), 0};
    case SuperIndex::dmin:
      return {0, -static_cast<float>(p.min(sub, row))};
    case SuperIndex::scale:
      return {p.d(block, row), 0};
    case SuperIndex::min:
      break;
  }
  return {0, -p.dmin(block, row)};
}

}  // namespace

int Quantized::parameters() const {
  return std::visit([](const auto& p) { return count(p); }, params);
}

Parameter Quantized::parameter(int64_t row, int64_t window_index, int index) const {
  assert(index >= 0 && index < parameters());
  return std::visit([&](const auto& p) { return get(p, row, window_index, index); }, params);
}

void Quantized::derivative(int64_t row, int64_t window_index, int index, std::span<float> out) const {
  const Parameter moved = parameter(row, window_index, index);
  assert(std::ssize(out) == moved.last - moved.first);
  const int64_t shared = line_columns(params);
  for (int64_t col = moved.first; col < moved.last; col += shared) {
    const Line line = line_at(params, row, col);
    const Slope s = std::visit([&](const auto& p) { return slope(p, row, col, index); }, params);
    for (int64_t c = col; c < std::min(col + shared, moved.last); ++c)
      out[static_cast<size_t>(c - moved.first)] = s.per_level * line.level(codes(row, c)) + s.constant;
  }
}

float Quantized::rounded(int index, float x) const {
  const Parameter range = parameter(0, 0, index);
  const float inside = x > range.lowest ? (x < range.highest ? x : range.highest) : range.lowest;
  return std::visit([&](const auto& p) { return stored(p, index, inside); }, params);
}

void Quantized::set_parameter(int64_t row, int64_t window_index, int index, float x) {
  assert(x == rounded(index, x) || -x == rounded(index, -x));  // scales of either sign, also where solvers want one
  std::visit([&](auto& p) { put(p, row, window_index, index, x); }, params);
}

}  // namespace pare
