#include "pare/container/float_layers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "pare/base/float_formats.h"
#include "pare/container/bit_packing.h"
#include "pare/container/code_maps.h"

namespace pare {
namespace {

using Levels = CodebookSpec::Levels;

constexpr int64_t kMxGroup = 32, kNvGroup = 16;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t scales_in(const StoredTensor& t) { return matrix_shape(t.shape).size(); }

void layout_fp8(FloatLayer& l, int64_t block) {
  const auto& scales = *l.scales;
  const int64_t n = l.shape.rows, k = l.shape.cols;
  l.spec = {.levels = Levels::e4m3, .scale = scale_kind(scale_type(scales)), .group = k};
  if (scales.shape.size() <= 1 && scales_in(scales) == 1) {
    l.spec.rows = 0;
  } else if (matrix_shape(scales.shape) == Shape{n, 1} || scales.shape == std::vector<int64_t>{n}) {
    l.spec.rows = 1;
  } else {
    if (block < 1 || matrix_shape(scales.shape) != Shape{divide_up(n, block), divide_up(k, block)})
      refuse_tensor(scales, "the scales do not fit the codes",
                    fmt::format("[1], [{}, 1] or [{}, {}]", n, divide_up(n, std::max<int64_t>(1, block)),
                                divide_up(k, std::max<int64_t>(1, block))),
                    fmt::format("{}", scales.shape));
    l.block = block;
    l.spec.rows = block;
    l.spec.group = std::gcd(block, k);  // the last block of a row may be shorter
  }
}

void layout_grouped(FloatLayer& l, Levels levels, ScaleKind kind, int64_t group) {
  const StoredTensor& scales = *l.scales;
  l.spec = {.levels = levels, .scale = kind, .group = group};
  if (l.shape.cols % group != 0 || scales_in(scales) != l.shape.size() / group)
    refuse_tensor(scales, "the scales do not fit the codes",
                  fmt::format("one for every {} of {} x {}", group, l.shape.rows, l.shape.cols),
                  fmt::format("{}", scales.shape));
}

float e8m0(const StoredTensor& t, int64_t at) {
  const auto code = std::to_integer<uint8_t>(t.bytes[static_cast<size_t>(at)]);
  if (code == 255) refuse_tensor(t, "a scale is not a number", "0 to 254", fmt::format("255 at {}", at));
  return f8_e8m0_to_f32(code);
}

// Scales stored rows x groups.
void load_grouped(const FloatLayer& l, Codebook& book) {
  const int64_t groups = book.scale.rows();
  if (l.global) {
    std::vector<float> global(1);
    read_scales(*l.global, global);
    if (!(global[0] > 0)) refuse_tensor(*l.global, "the global scale is not positive", "a number above 0", "another");
    book.divisor = global[0];
  }
  for (int64_t r = 0; r < book.scale.cols(); ++r)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = r * groups + g;
      if (l.spec.scale == ScaleKind::e8m0) {
        book.scale(g, r) = e8m0(*l.scales, at);
        continue;
      }
      const float local = f8_e4m3_to_f32(std::to_integer<uint8_t>(l.scales->bytes[static_cast<size_t>(at)]));
      if (!(local >= 0))
        refuse_tensor(*l.scales, "a scale is negative or not a number", "positive numbers",
                      fmt::format("{} at {}", local, at));
      book.scale(g, r) = local / book.divisor;
    }
}

void load_fp8_scales(const FloatLayer& l, Codebook& book) {
  std::vector<float> stored(static_cast<size_t>(scales_in(*l.scales)));
  read_scales(*l.scales, stored);
  const int64_t across = l.block > 0 ? divide_up(l.shape.cols, l.block) : 1;
  for (int64_t g = 0; g < book.scale.rows(); ++g)
    for (int64_t r = 0; r < book.scale.cols(); ++r) {
      const int64_t at = l.spec.rows == 0 ? 0 : l.block > 0 ? r / l.block * across + g * l.spec.group / l.block : r;
      book.scale(g, r) = stored[static_cast<size_t>(at)];
    }
}

bool is_fp8(const CodebookSpec& spec) { return spec.levels == Levels::e4m3; }
bool is_grouped(const CodebookSpec& spec) { return spec.scale == ScaleKind::e8m0 || spec.scale == ScaleKind::ue4m3; }

}  // namespace

FloatLayer float_layer(const StoredTensor& codes, const StoredTensor& scales, const StoredTensor* global,
                       int64_t block) {
  FloatLayer l{.codes = &codes, .scales = &scales, .global = global, .shape = {}, .spec = {}};
  const bool positive = std::all_of(codes.shape.begin(), codes.shape.end(), [](int64_t n) { return n > 0; });
  if (codes.shape.size() < 2 || !positive)
    refuse_tensor(codes, "the tensor has a wrong shape", "two dimensions, none empty", fmt::format("{}", codes.shape));
  l.shape = matrix_shape(codes.shape);
  if (codes.type == "f8_e4m3") {
    scales.type == "u8" ? layout_grouped(l, Levels::e4m3, ScaleKind::e8m0, kMxGroup) : layout_fp8(l, block);
  } else if (codes.type == "u8") {
    l.shape.cols *= 2;
    scales.type == "u8" ? layout_grouped(l, Levels::e2m1, ScaleKind::e8m0, kMxGroup)
                        : layout_grouped(l, Levels::e2m1, ScaleKind::ue4m3, kNvGroup);
    l.spec.global = scales.type != "u8";
    if (l.spec.global && (scales.type != "f8_e4m3" || !global))
      refuse_tensor(scales, "the scales have a type that 4-bit floats do not use",
                    "u8, or f8_e4m3 beside a global scale", scales.type);
    if (l.spec.global) require_shape(*global, "f32", {1});
  } else {
    refuse_tensor(codes, "the tensor has another type than its format uses", "f8_e4m3 or u8", codes.type);
  }
  return l;
}

Quantized load_float_layer(const FloatLayer& l) {
  Quantized q(l.spec, l.shape);
  auto& book = std::get<Codebook>(q.params);
  is_grouped(l.spec) ? load_grouped(l, book) : load_fp8_scales(l, book);
  unpack_rows(is_fp8(l.spec) ? 8 : 4, l.codes->bytes, q.codes);
  to_levels(code_map(l.spec.levels), *l.codes, q.codes);
  return q;
}

bool is_float_grid(const CodebookSpec& spec) {
  if (spec.nested) return false;
  if (is_fp8(spec) && !is_grouped(spec)) return !spec.global;
  if (spec.scale == ScaleKind::e8m0)
    return (is_fp8(spec) || spec.levels == Levels::e2m1) && spec.group == kMxGroup && spec.rows == 1 && !spec.global;
  return spec.levels == Levels::e2m1 && spec.scale == ScaleKind::ue4m3 && spec.group == kNvGroup && spec.rows == 1;
}

FloatTensors float_tensors(const CodebookSpec& spec, Shape s) {
  FloatTensors t;
  t.codes_type = is_fp8(spec) ? DType::f8_e4m3 : DType::u8;
  t.codes_shape = {s.rows, is_fp8(spec) ? s.cols : s.cols / 2};
  if (is_grouped(spec)) {
    t.scales_type = spec.scale == ScaleKind::e8m0 ? DType::u8 : DType::f8_e4m3;
    t.scales_shape = {s.rows, s.cols / spec.group};
    return t;
  }
  t.scales_type = scale_dtype(spec.scale);
  if (spec.rows == 0)
    t.scales_shape = {1};
  else
    t.scales_shape = {divide_up(s.rows, spec.rows), spec.group == 0 ? 1 : divide_up(s.cols, spec.group)};
  return t;
}

std::vector<std::byte> float_codes(const Quantized& q) {
  const CodebookSpec& spec = std::get<Codebook>(q.params).spec;
  Plane<uint8_t> codes = q.codes;
  to_codes(code_map(spec.levels), codes);
  if (is_fp8(spec)) return bytes_of(codes.data(), static_cast<size_t>(codes.size()));
  std::vector<std::byte> out(static_cast<size_t>(codes.size() / 2));
  pack_rows(4, codes, out);
  return out;
}

std::vector<std::byte> float_scales(const Quantized& q) {
  const auto& book = std::get<Codebook>(q.params);
  const CodebookSpec& spec = book.spec;
  const int64_t rows = book.scale.cols(), step = spec.rows == 0 ? rows : spec.rows;
  std::vector<float> values;
  for (int64_t r = 0; r < rows; r += step)
    for (int64_t g = 0; g < (spec.rows == 0 ? 1 : book.scale.rows()); ++g) values.push_back(book.scale(g, r));
  if (!is_grouped(spec)) return bytes_as(scale_dtype(spec.scale), values);
  std::vector<std::byte> out;
  for (const float scale : values) {
    if (spec.scale == ScaleKind::e8m0) {
      out.push_back(static_cast<std::byte>(std::bit_cast<uint32_t>(scale) >> 23 & 0xFF));
    } else {
      const int level = level_table(Levels::e4m3).nearest(scale * book.divisor);
      out.push_back(std::byte{code_map(Levels::e4m3).code[static_cast<size_t>(level)]});
    }
  }
  return out;
}

}  // namespace pare
