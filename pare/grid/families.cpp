#include "pare/grid/families.h"

#include <algorithm>

namespace pare {
namespace {

// ---- the closed set

using B = BlockSpec::Type;
constexpr BlockTraits kBlocks[] = {
    {B::q4_0, "q4_0", 4.5, 15, 8, 32, false},      {B::q4_1, "q4_1", 5, 15, 0, 32, true},
    {B::q5_0, "q5_0", 5.5, 31, 16, 32, false},     {B::q5_1, "q5_1", 6, 31, 0, 32, true},
    {B::q8_0, "q8_0", 8.5, 255, 128, 32, false},   {B::q2_0, "q2_0", 2.25, 3, 1, 64, false},
    {B::tq1_0, "tq1_0", 1.6875, 2, 1, 256, false}, {B::tq2_0, "tq2_0", 2.0625, 2, 1, 256, false}};

using S = SuperBlockSpec::Type;
const SuperBlockTraits kSuperBlocks[] = {
    {S::q2_k, "q2_k", 2.625, 3, 0, nullptr, 16, 0, 15, true},
    {S::q3_k, "q3_k", 3.4375, 7, 4, nullptr, 16, -32, 31, false},
    {S::q4_k, "q4_k", 4.5, 15, 0, nullptr, 32, 0, 63, true},
    {S::q5_k, "q5_k", 5.5, 31, 0, nullptr, 32, 0, 63, true},
    {S::q6_k, "q6_k", 6.5625, 63, 32, nullptr, 16, -128, 127, false},
    {S::iq4_xs, "iq4_xs", 4.25, 15, 0, &level_table(CodebookSpec::Levels::iq4_nl), 32, -32, 31, false}};

template <class T>
float as_float(T integer) {
  return static_cast<float>(integer);
}

int64_t windows_in(int64_t cols, int64_t window) { return (cols + window - 1) / window; }

Affine make(AffineSpec spec, Shape s) {
  if (spec.group == 0) spec.group = s.cols;
  const int64_t groups = windows_in(s.cols, spec.group);
  if (spec.biased) spec.symmetric = false, spec.lowest_zero = 0;
  const auto zero = static_cast<uint8_t>(spec.symmetric ? 1 << (spec.bits - 1) : spec.lowest_zero);
  Affine p{spec, Plane<float>(groups, s.rows), Plane<uint8_t>(groups, s.rows, zero), {}};
  if (spec.biased) p.bias = Plane<float>(groups, s.rows);
  return p;
}
Block make(const BlockSpec& spec, Shape s) {
  const int64_t blocks = s.cols / traits(spec).columns;
  return {spec, Plane<float>(blocks, s.rows), traits(spec).mins ? Plane<float>(blocks, s.rows) : Plane<float>()};
}
SuperBlock make(const SuperBlockSpec& spec, Shape s) {
  const SuperBlockTraits& t = traits(spec);
  const int64_t blocks = s.cols / SuperBlock::kColumns, subs = s.cols / t.sub;
  SuperBlock b{spec, Plane<float>(blocks, s.rows), {}, Plane<int8_t>(subs, s.rows), {}};
  if (t.mins) b.dmin = Plane<float>(blocks, s.rows), b.min = Plane<uint8_t>(subs, s.rows);
  return b;
}
Codebook make(CodebookSpec spec, Shape s) {
  if (spec.group == 0) spec.group = s.cols;
  return {spec, Plane<float>(windows_in(s.cols, spec.group), s.rows), {}, 1};
}

Lattice make(const LatticeSpec& spec, Shape s) {
  const LatticeTraits& t = traits(spec);
  const Plane<uint8_t> shift = t.shift_per_run ? Plane<uint8_t>(s.cols / t.sub, s.rows) : Plane<uint8_t>();
  return {spec, Plane<float>(s.cols / 256, s.rows), Plane<uint8_t>(s.cols / t.sub, s.rows), shift};
}

// ---- lines

Line line_of(const Affine& p, int64_t row, int64_t col) {
  const int64_t group = col / p.spec.group;
  return {p.scale(group, row), as_float(p.zero(group, row)), p.spec.biased ? -p.bias(group, row) : 0};
}
Line line_of(const Block& p, int64_t row, int64_t col) {
  const BlockTraits& t = traits(p.spec);
  const int64_t block = col / t.columns;
  return {p.scale(block, row), as_float(t.middle), t.mins ? p.min(block, row) : 0};
}
Line line_of(const SuperBlock& p, int64_t row, int64_t col) {
  const SuperBlockTraits& t = traits(p.spec);
  const int64_t block = col / SuperBlock::kColumns, sub = col / t.sub;
  return {p.d(block, row) * as_float(p.scale(sub, row)), as_float(t.middle),
          t.mins ? p.dmin(block, row) * as_float(p.min(sub, row)) : 0, t.table};
}

Line line_of(const Codebook& p, int64_t row, int64_t col) {
  return {p.scale(col / p.spec.group, row), 0, 0, &level_table(p.spec.levels)};
}

Line line_of(const Lattice& p, int64_t row, int64_t col) {
  const LatticeTraits& t = traits(p.spec);
  return {p.d(col / 256, row) * t.multiple(p.scale(col / t.sub, row)), 0, 0, &t.table()};
}

void gather(const Affine& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const int64_t group = col / p.spec.group;
  const float* scale = p.scale.row(group) + row;
  const uint8_t* zero = p.zero.row(group) + row;
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = scale[r];
    out.zero.v[r] = as_float(zero[r]);
  }
  for (int r = 0; p.spec.biased && r < rows; ++r) out.min.v[r] = -p.bias(group, row + r);
}
void gather(const Block& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const BlockTraits& t = traits(p.spec);
  const float *scale = p.scale.row(col / t.columns) + row, middle = as_float(t.middle);
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = scale[r];
    out.zero.v[r] = middle;
  }
  if (t.mins) std::copy_n(p.min.row(col / t.columns) + row, rows, out.min.v);
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

// Where a run has a shift of its own, it stands where other lines have their zero.
void gather(const Lattice& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const LatticeTraits& t = traits(p.spec);
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = line_of(p, row + r, col).scale;
    if (t.shift_per_run) out.zero.v[r] = p.shift(col / t.sub, row + r) ? 0.125f : -0.125f;
  }
}

}  // namespace

std::span<const BlockTraits> all_blocks() { return kBlocks; }
std::span<const SuperBlockTraits> all_super_blocks() { return kSuperBlocks; }
const BlockTraits& traits(const BlockSpec& spec) { return kBlocks[static_cast<size_t>(spec.type)]; }
const SuperBlockTraits& traits(const SuperBlockSpec& spec) { return kSuperBlocks[static_cast<size_t>(spec.type)]; }

int64_t line_columns(const Grid& grid, int64_t cols) {
  return std::visit(Overloaded{[&](const AffineSpec& s) { return s.group > 0 ? s.group : cols; },
                               [](const BlockSpec& s) { return traits(s).columns; },
                               [](const SuperBlockSpec& s) { return traits(s).sub; },
                               [&](const CodebookSpec& s) { return s.group > 0 ? s.group : cols; },
                               [](const LatticeSpec& s) { return traits(s).sub; }},
                    grid);
}
int64_t line_columns(const Params& params) {
  return std::visit([](const auto& p) { return line_columns(Grid(p.spec), 0); }, params);
}
const LevelTable* table_of(const Grid& grid) {
  if (const auto* super = std::get_if<SuperBlockSpec>(&grid)) return traits(*super).table;
  if (const auto* lattice = std::get_if<LatticeSpec>(&grid)) return &traits(*lattice).table();
  const auto* table = std::get_if<CodebookSpec>(&grid);
  return table ? &level_table(table->levels) : nullptr;
}
int codes_of(const Grid& grid) {
  return std::visit(
      Overloaded{[](const AffineSpec& s) { return 1 << s.bits; }, [](const BlockSpec& s) { return traits(s).top + 1; },
                 [](const SuperBlockSpec& s) { return traits(s).top + 1; },
                 [](const CodebookSpec& s) { return level_table(s.levels).count; },
                 [](const LatticeSpec& s) { return traits(s).table().count; }},
      grid);
}
int middle_of(const Grid& grid) {
  return std::visit(Overloaded{[](const AffineSpec& s) { return s.symmetric ? 1 << (s.bits - 1) : -1; },
                               [](const BlockSpec& s) { return traits(s).middle; },
                               [](const SuperBlockSpec& s) { return traits(s).middle; },
                               [](const CodebookSpec&) { return 0; }, [](const LatticeSpec&) { return 0; }},
                    grid);
}
bool has_mins(const Grid& grid) {
  if (const auto* block = std::get_if<BlockSpec>(&grid)) return traits(*block).mins;
  const auto* affine = std::get_if<AffineSpec>(&grid);
  if (affine) return affine->biased;
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
