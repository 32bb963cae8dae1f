#include "pare/kernels/kernel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "pare/base/error.h"

namespace pare {
namespace {

bool any_floats(const FloatRows&) { return true; }
bool any_grid(const Grid&, Shape) { return true; }
// The vector kernel knows no lines and changes parameters between units of 32 columns only.
bool whole_units(const Grid& grid, Shape shape) {
  const TileLayout t = tile_layout(grid, shape);
  return t.kind != TileKind::lines && (t.window % kUnit == 0 || t.window >= shape.cols);
}

constexpr FloatKernel kFloatKernels[] = {
    {"float-f32", any_floats, multiply_floats},
    {"plain", any_floats, multiply_floats_plain},
};
constexpr TileKernel kTileKernels[] = {
    {"tile-f32", whole_units, tile_layout, pack_rows, multiply_tiles, expand_tiles},
    {"plain", any_grid, tile_layout, pack_rows, multiply_tiles_plain, expand_tiles_plain},
};

bool is_kernel(std::string_view name) {
  return std::ranges::any_of(kFloatKernels, [&](const FloatKernel& k) { return k.name == name; }) ||
         std::ranges::any_of(kTileKernels, [&](const TileKernel& k) { return k.name == name; });
}

std::string_view forced() {
  const char* name = std::getenv("PARE_KERNEL");
  if (!name || !*name) return {};
  if (is_kernel(name)) return name;
  std::string known;
  for (const FloatKernel& k : kFloatKernels) known += fmt::format("{}, ", k.name);
  for (const TileKernel& k : kTileKernels)
    if (known.find(k.name) == std::string::npos) known += fmt::format("{}, ", k.name);
  known.resize(known.size() - 2);
  throw Error({.what = "no such kernel",
               .where = "environment variable PARE_KERNEL",
               .expected = "one of " + known,
               .got = name,
               .remedy = "unset PARE_KERNEL to use the best kernel of each matrix",
               .code = ExitCode::usage});
}

// A kernel of one table may be forced while the other table has none of that name: that table then chooses freely.
template <class Kernel, class Takes>
const Kernel& first_that(std::span<const Kernel> table, const Takes& takes) {
  const std::string_view name = forced();
  const bool known = std::ranges::any_of(table, [&](const Kernel& k) { return k.name == name; });
  for (const Kernel& k : table)
    if ((!known || k.name == name) && takes(k)) return k;
  return table.back();
}

}  // namespace

std::span<const FloatKernel> float_kernels() { return kFloatKernels; }
std::span<const TileKernel> tile_kernels() { return kTileKernels; }

const FloatKernel& choose(const FloatRows& w) {
  return first_that(float_kernels(), [&](const FloatKernel& k) { return k.takes(w); });
}
const TileKernel& choose(const Grid& grid, Shape shape) {
  return first_that(tile_kernels(), [&](const TileKernel& k) { return k.takes(grid, shape); });
}

}  // namespace pare
