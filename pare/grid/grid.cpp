#include "pare/grid/grid.h"

#include <fmt/format.h>

#include <algorithm>

#include "pare/base/error.h"
#include "pare/grid/families.h"
#include "pare/grid/levels.h"

namespace pare {
namespace {

int64_t group_columns(const AffineSpec& spec, int64_t cols) { return spec.group > 0 ? spec.group : cols; }
int64_t group_columns(const CodebookSpec& spec, int64_t cols) { return spec.group > 0 ? spec.group : cols; }

// Weights under one scale.
template <class Spec>
double sharing(const Spec& spec, Shape s) {
  const int64_t rows = spec.rows > 0 ? std::min(spec.rows, s.rows) : s.rows;
  return static_cast<double>(group_columns(spec, s.cols) * rows);
}

std::string affine_name(const AffineSpec& spec) {
  const std::string group = spec.rows == 0 ? "tensor" : spec.group > 0 ? fmt::format("g{}", spec.group) : "row";
  return fmt::format("int{}-{}-{}", spec.bits, group, spec.biased ? "bias" : spec.symmetric ? "sym" : "asym");
}

double affine_bits(const AffineSpec& spec, Shape s) {
  const int scale = scale_bits(spec.scale), zero = spec.biased ? scale : spec.symmetric ? 0 : spec.bits;
  return spec.bits + static_cast<double>(scale + zero) / sharing(spec, s);
}

// The combinations that have a name of their own.
struct NamedTable {
  std::string_view name;
  CodebookSpec spec;
};
constexpr NamedTable kNamedTables[] = {
    {"iq4_nl", {CodebookSpec::Levels::iq4_nl, ScaleKind::f16, 32, 0}},
    {"mxfp4", {CodebookSpec::Levels::e2m1, ScaleKind::e8m0, 32, 0}},
    {"nvfp4", {CodebookSpec::Levels::e2m1, ScaleKind::ue4m3, 16, 0}},
    {"nvfp4", {CodebookSpec::Levels::e2m1, ScaleKind::ue4m3, 16, 64}},
    {"q1_0", {CodebookSpec::Levels::sign, ScaleKind::f16, 128, 0}},
    {"nf4", {CodebookSpec::Levels::nf4, ScaleKind::f32, 64, 0}},
    {"fp4", {CodebookSpec::Levels::fp4, ScaleKind::f32, 64, 0}},
    {"fp8", {CodebookSpec::Levels::e4m3, ScaleKind::f16, 0, 0}},
    {"mxfp8", {CodebookSpec::Levels::e4m3, ScaleKind::e8m0, 32, 0}},
    {"llm-int8", {CodebookSpec::Levels::int8, ScaleKind::f32, 0, 0}},
    {"nf4-dq", {CodebookSpec::Levels::nf4, ScaleKind::f32, 64, 0, 1, true}},
    {"fp4-dq", {CodebookSpec::Levels::fp4, ScaleKind::f32, 64, 0, 1, true}},
    {"fp8-tensor", {CodebookSpec::Levels::e4m3, ScaleKind::f16, 0, 0, 0}},
    {"fp8-block", {CodebookSpec::Levels::e4m3, ScaleKind::f16, 128, 0, 128}},
    {"nvfp4-global", {CodebookSpec::Levels::e2m1, ScaleKind::ue4m3, 16, 0, 1, false, true}},
};

std::string table_name(const CodebookSpec& spec) {
  for (const NamedTable& named : kNamedTables)
    if (named.spec == spec) return std::string(named.name);
  // Whatever float the scale is, and however long the rows are.
  if (spec.levels == CodebookSpec::Levels::e4m3 && spec.scale != ScaleKind::e8m0)
    return spec.rows == 0 ? "fp8-tensor" : spec.rows == 1 ? "fp8" : "fp8-block";
  if (spec.levels == CodebookSpec::Levels::int8) return "llm-int8";
  constexpr std::string_view kScales[] = {"f16", "f32", "e8m0", "e4m3", "bf16"};
  const std::string group = spec.group > 0 ? fmt::format("g{}", spec.group) : "row";
  return fmt::format("{}-{}-{}", level_table(spec.levels).name, group, kScales[static_cast<size_t>(spec.scale)]);
}

double table_bits(const CodebookSpec& spec, Shape s) {
  const double scale = spec.nested ? 8 + 32.0 / Codebook::Nested::kBlock : scale_bits(spec.scale);
  return level_table(spec.levels).bits() + scale / sharing(spec, s);
}

// Of grids whose windows share numbers; and of those with so many levels that a search finds little.
bool apart(const CodebookSpec& spec) {
  return spec.rows != 1 || spec.nested || spec.global || level_table(spec.levels).count > 16;
}

// Columns come in whole multiples of this.
int64_t multiple_of(const Grid& grid, int64_t cols) {
  const auto* table = std::get_if<CodebookSpec>(&grid);
  return table && table->block > 0 ? table->block : window_of(grid, cols);
}

void check_affine(const AffineSpec& spec, const std::string& tensor) {
  const int top = (1 << std::clamp(spec.bits, 1, 8)) - 1;
  if (spec.bits < 2 || spec.bits > 8)
    throw Error({.what = "integer grids have 2 to 8 bits", .where = tensor, .got = std::to_string(spec.bits)});
  if (spec.group < 0)
    throw Error({.what = "a group has at least one column",
                 .where = tensor,
                 .expected = "a positive group size, or 0 for the whole row",
                 .got = std::to_string(spec.group)});
  if (spec.rows != 1 && (!spec.symmetric || spec.biased))
    throw Error({.what = "scales shared by rows are for symmetric grids", .where = tensor});
  if (spec.lowest_zero < 0 || spec.lowest_zero >= top)
    throw Error({.what = "the lowest zero point leaves no codes above it",
                 .where = tensor,
                 .expected = fmt::format("0 to {}", top - 1),
                 .got = std::to_string(spec.lowest_zero)});
}

// The largest usual group size that divides `cols` and is no larger than the one that does not.
std::string group_remedy(int64_t cols, int64_t group) {
  for (int64_t smaller : {1024, 512, 256, 128, 64, 32, 16})
    if (smaller < group && cols % smaller == 0)
      return fmt::format("use a group size of {} (divides {}) or 0 (the whole row)", smaller, cols);
  return "use a group size of 0 (the whole row)";
}

std::string block_remedy(int64_t cols, int64_t window) {
  if (window > 32 && cols % 32 == 0) return "use q8_0 or q4_0 for this tensor (blocks of 32)";
  return "keep this tensor in f16";
}

}  // namespace

std::span<const Grid> named_grids() {
  static const std::vector<Grid> grids = [] {
    std::vector<Grid> all;
    for (const BlockTraits& t : all_blocks()) all.push_back(BlockSpec{t.type});
    for (const SuperBlockTraits& t : all_super_blocks()) all.push_back(SuperBlockSpec{t.type});
    for (const NamedTable& t : kNamedTables)
      if (t.spec.block == 0 && !apart(t.spec)) all.push_back(t.spec);
    for (const LatticeTraits& t : all_lattices()) all.push_back(LatticeSpec{t.type});
    return all;
  }();
  return grids;
}

std::span<const Grid> shared_grids() {
  static const std::vector<Grid> grids = [] {
    std::vector<Grid> all;
    for (const NamedTable& t : kNamedTables)
      if (apart(t.spec)) all.push_back(t.spec);
    return all;
  }();
  return grids;
}

std::string name_of(const Grid& grid) {
  return std::visit(Overloaded{[](const AffineSpec& s) { return affine_name(s); },
                               [](const BlockSpec& s) { return std::string(traits(s).name); },
                               [](const SuperBlockSpec& s) { return std::string(traits(s).name); },
                               [](const CodebookSpec& s) { return table_name(s); },
                               [](const LatticeSpec& s) { return std::string(traits(s).name); }},
                    grid);
}

double bits_per_weight(const Grid& grid, Shape s) {
  return std::visit(Overloaded{[&](const AffineSpec& a) { return affine_bits(a, s); },
                               [](const BlockSpec& b) { return traits(b).bits_per_weight; },
                               [](const SuperBlockSpec& b) { return traits(b).bits_per_weight; },
                               [&](const CodebookSpec& t) { return table_bits(t, s); },
                               [](const LatticeSpec& l) { return traits(l).bits_per_weight; }},
                    grid);
}

int64_t window_of(const Grid& grid, int64_t cols) {
  return std::visit(Overloaded{[&](const AffineSpec& s) { return group_columns(s, cols); },
                               [](const BlockSpec& s) { return traits(s).columns; },
                               [](const SuperBlockSpec&) { return SuperBlock::kColumns; },
                               [&](const CodebookSpec& s) { return group_columns(s, cols); },
                               [](const LatticeSpec&) { return int64_t{256}; }},
                    grid);
}

int step_of(const Grid& grid) {
  const auto* lattice = std::get_if<LatticeSpec>(&grid);
  return lattice ? traits(*lattice).step : 1;
}

bool divides(const Grid& grid, int64_t cols) {
  const int64_t multiple = multiple_of(grid, cols);
  return cols > 0 && multiple > 0 && cols % multiple == 0;
}

void check_shape(const Grid& grid, Shape s, const std::string& tensor) {
  if (const auto* affine = std::get_if<AffineSpec>(&grid)) check_affine(*affine, tensor);
  if (s.rows <= 0 || s.cols <= 0)
    throw Error({.what = "an empty matrix cannot be quantized",
                 .where = tensor,
                 .got = fmt::format("{} x {}", s.rows, s.cols)});
  if (divides(grid, s.cols)) return;
  const int64_t window = multiple_of(grid, s.cols);
  const bool affine = std::holds_alternative<AffineSpec>(grid);
  throw Error({.what = fmt::format("{} needs a number of columns that is a multiple of {}", name_of(grid), window),
               .where = tensor,
               .got = fmt::format("{} columns", s.cols),
               .remedy = affine ? group_remedy(s.cols, window) : block_remedy(s.cols, window)});
}

}  // namespace pare
