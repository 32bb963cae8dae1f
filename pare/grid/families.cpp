#include "pare/grid/families.h"

#include <algorithm>

namespace pare {
namespace {

// ---- the closed set

constexpr BlockTraits kBlocks[] = {{BlockSpec::Type::q4_0, "q4_0", 4.5, 15, 8},
                                   {BlockSpec::Type::q8_0, "q8_0", 8.5, 255, 128}};
constexpr SuperBlockTraits kSuperBlocks[] = {
    {SuperBlockSpec::Type::q4_k, "q4_k", 4.5, 15, 0, 32, 0, 63, true},
    {SuperBlockSpec::Type::q6_k, "q6_k", 6.5625, 63, 32, 16, -128, 127, false}};

template <class T>
float as_float(T integer) {
  return static_cast<float>(integer);
}

int64_t windows_in(int64_t cols, int64_t window) { return (cols + window - 1) / window; }

Affine make(AffineSpec spec, Shape s) {
  if (spec.group == 0) spec.group = s.cols;
  const int64_t groups = windows_in(s.cols, spec.group);
  const auto zero = static_cast<uint8_t>(spec.symmetric ? 1 << (spec.bits - 1) : spec.lowest_zero);
  return {spec, Plane<float>(groups, s.rows), Plane<uint8_t>(groups, s.rows, zero)};
}
Block make(const BlockSpec& spec, Shape s) { return {spec, Plane<float>(s.cols / Block::kColumns, s.rows)}; }
SuperBlock make(const SuperBlockSpec& spec, Shape s) {
  const SuperBlockTraits& t = traits(spec);
  const int64_t blocks = s.cols / SuperBlock::kColumns, subs = s.cols / t.sub;
  SuperBlock b{spec, Plane<float>(blocks, s.rows), {}, Plane<int8_t>(subs, s.rows), {}};
  if (t.mins) b.dmin = Plane<float>(blocks, s.rows), b.min = Plane<uint8_t>(subs, s.rows);
  return b;
}
Codebook make(CodebookSpec spec, Shape s) {
  if (spec.group == 0) spec.group = s.cols;
  return {spec, Plane<float>(windows_in(s.cols, spec.group), s.rows)};
}

// ---- lines

Line line_of(const Affine& p, int64_t row, int64_t col) {
  const int64_t group = col / p.spec.group;
  return {p.scale(group, row), as_float(p.zero(group, row)), 0};
}
Line line_of(const Block& p, int64_t row, int64_t col) {
  return {p.scale(col / Block::kColumns, row), as_float(traits(p.spec).middle), 0};
}
Line line_of(const SuperBlock& p, int64_t row, int64_t col) {
  const SuperBlockTraits& t = traits(p.spec);
  const int64_t block = col / SuperBlock::kColumns, sub = col / t.sub;
  return {p.d(block, row) * as_float(p.scale(sub, row)), as_float(t.middle),
          t.mins ? p.dmin(block, row) * as_float(p.min(sub, row)) : 0};
}

Line line_of(const Codebook& p, int64_t row, int64_t col) {
  return {p.scale(col / p.spec.group, row), 0, 0, &level_table(p.spec.levels)};
}

void gather(const Affine& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const int64_t group = col / p.spec.group;
  const float* scale = p.scale.row(group) + row;
  const uint8_t* zero = p.zero.row(group) + row;
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = scale[r];
    out.zero.v[r] = as_float(zero[r]);
  }
}
void gather(const Block& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const float* scale = p.scale.row(col / Block::kColumns) + row;
  const float middle = as_float(traits(p.spec).middle);
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = scale[r];
    out.zero.v[r] = middle;
  }
}
void gather(const SuperBlock& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const SuperBlockTraits& t = traits(p.spec);
  const int64_t block = col / SuperBlock::kColumns, sub = col / t.sub;
  const float *d = p.d.row(block) + row, middle = as_float(t.middle);
  const int8_t* scale = p.scale.row(sub) + row;
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = d[r] * as_float(scale[r]);
    out.zero.v[r] = middle;
  }
  if (!t.mins) return;
  const float* dmin = p.dmin.row(block) + row;
  const uint8_t* min = p.min.row(sub) + row;
  for (int r = 0; r < rows; ++r) out.min.v[r] = dmin[r] * as_float(min[r]);
}
void gather(const Codebook& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  std::copy_n(p.scale.row(col / p.spec.group) + row, rows, out.scale.v);
}

}  // namespace

std::span<const BlockTraits> all_blocks() { return kBlocks; }
std::span<const SuperBlockTraits> all_super_blocks() { return kSuperBlocks; }
const BlockTraits& traits(const BlockSpec& spec) { return kBlocks[static_cast<size_t>(spec.type)]; }
const SuperBlockTraits& traits(const SuperBlockSpec& spec) { return kSuperBlocks[static_cast<size_t>(spec.type)]; }

int64_t line_columns(const Grid& grid, int64_t cols) {
  return std::visit(Overloaded{[&](const AffineSpec& s) { return s.group > 0 ? s.group : cols; },
                               [](const BlockSpec&) { return Block::kColumns; },
                               [](const SuperBlockSpec& s) { return traits(s).sub; },
                               [&](const CodebookSpec& s) { return s.group > 0 ? s.group : cols; }},
                    grid);
}
int64_t line_columns(const Params& params) {
  return std::visit([](const auto& p) { return line_columns(Grid(p.spec), 0); }, params);
}
const LevelTable* table_of(const Grid& grid) {
  const auto* table = std::get_if<CodebookSpec>(&grid);
  return table ? &level_table(table->levels) : nullptr;
}
int codes_of(const Grid& grid) {
  return std::visit(
      Overloaded{[](const AffineSpec& s) { return 1 << s.bits; }, [](const BlockSpec& s) { return traits(s).top + 1; },
                 [](const SuperBlockSpec& s) { return traits(s).top + 1; },
                 [](const CodebookSpec& s) { return level_table(s.levels).count; }},
      grid);
}
bool has_mins(const Grid& grid) {
  const auto* super = std::get_if<SuperBlockSpec>(&grid);
  return super && traits(*super).mins;
}
Line line_at(const Params& params, int64_t row, int64_t col) {
  return std::visit([&](const auto& p) { return line_of(p, row, col); }, params);
}
void gather_lines(const Params& params, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  std::visit([&](const auto& p) { gather(p, row, rows, col, out); }, params);
}

Params make_params(const Grid& grid, Shape shape) {
  return std::visit([&](const auto& spec) { return Params(make(spec, shape)); }, grid);
}

}  // namespace pare
