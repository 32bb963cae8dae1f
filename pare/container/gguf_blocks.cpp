#include "pare/container/gguf_blocks.h"

#include <fmt/format.h>

#include <cassert>
#include <cmath>

#include "pare/base/error.h"
#include "pare/base/float_formats.h"
#include "pare/container/gguf_codecs.h"
#include "pare/grid/line.h"

namespace pare {
namespace {

template <class Matches>
const Codec* find_codec(const Matches& matches) {
  for (const std::span<const Codec> codecs : {small_block_codecs(), super_block_codecs(), lattice_codecs()})
    for (const Codec& c : codecs)
      if (matches(c)) return &c;
  return nullptr;
}
const Codec* codec_of(std::string_view type) {
  return find_codec([&](const Codec& c) { return c.type == type; });
}
const Codec* codec_of(const Grid& grid) {
  return find_codec([&](const Codec& c) { return c.grid == grid; });
}

void check_finite(const Plane<float>& scales, const std::string& tensor) {
  for (int64_t block = 0; block < scales.rows(); ++block)
    for (int64_t row = 0; row < scales.cols(); ++row)
      if (!std::isfinite(scales(block, row)))
        throw Error({.what = "a block's scale is not a number",
                     .where = fmt::format("{}, row {}, block {}", tensor, row, block),
                     .expected = "a finite number",
                     .got = fmt::format("{}", scales(block, row)),
                     .remedy = "the file is damaged or was quantized from damaged weights: get it again"});
}
struct CheckFinite {
  const std::string& tensor;
  void operator()(const Affine&) const {}
  void operator()(const Block& p) const {
    check_finite(p.scale, tensor);
    check_finite(p.min, tensor);
  }
  void operator()(const SuperBlock& p) const {
    check_finite(p.d, tensor);
    check_finite(p.dmin, tensor);
  }
  void operator()(const Codebook& p) const { check_finite(p.scale, tensor); }
  void operator()(const Lattice& p) const { check_finite(p.d, tensor); }
};

// Where a code has room for more than the grid knows.
void check_codes(const Quantized& q, const std::string& tensor) {
  const int codes = codes_of(q.grid());
  if ((codes & (codes - 1)) == 0 || step_of(q.grid()) > 1) return;
  for (int64_t row = 0; row < q.shape().rows; ++row) {
    const uint8_t *first = q.codes.row(row), *last = first + q.shape().cols;
    const uint8_t* bad = std::find_if(first, last, [&](uint8_t code) { return code >= codes; });
    if (bad != last)
      throw Error({.what = "a code stands for no value",
                   .where = fmt::format("{}, row {}, column {}", tensor, row, bad - first),
                   .expected = fmt::format("0 to {}", codes - 1),
                   .got = std::to_string(*bad),
                   .remedy = "the file is damaged: get it again"});
  }
}

}  // namespace

void put_f16(float x, uint8_t* out) {
  assert(round_to_f16(x) == x);
  const uint16_t bits = f32_to_f16(x);
  std::memcpy(out, &bits, sizeof bits);
}
float take_f16(const uint8_t* in) {
  uint16_t bits;
  std::memcpy(&bits, in, sizeof bits);
  return f16_to_f32(bits);
}

const Grid* grid_of(const GgmlTypeInfo& type) {
  const Codec* c = codec_of(type.name);
  return c ? &c->grid : nullptr;
}

const Grid* gguf_grid(const Grid& wanted) {
  const Codec* c = find_codec([&](const Codec& candidate) {
    Grid grid = candidate.grid;
    if (auto* table = std::get_if<CodebookSpec>(&grid); table && grid != wanted) table->block = 0;
    return grid == wanted;
  });
  return c ? &c->grid : nullptr;
}

const GgmlTypeInfo* ggml_type_of(const Grid& grid) {
  const Codec* c = codec_of(grid);
  return c ? find_ggml_type(c->type) : nullptr;
}

void encode_blocks(const Quantized& q, std::span<std::byte> out) {
  const Codec* c = codec_of(q.grid());
  assert(c && q.order.empty());
  assert(out.size() == ggml_bytes(*find_ggml_type(c->type), {q.shape().rows, q.shape().cols}));
  c->encode(q, out.data());
}

Quantized decode_blocks(const GgmlTypeInfo& type, Shape shape, std::span<const std::byte> bytes,
                        const std::string& tensor) {
  const Codec* c = codec_of(type.name);
  assert(c);
  check_shape(c->grid, shape, tensor);
  const uint64_t needed = ggml_bytes(type, {shape.rows, shape.cols});
  if (bytes.size() != needed)
    throw Error({.what = "the tensor's bytes do not fit its shape",
                 .where = tensor,
                 .expected = fmt::format("{} bytes for {} x {}", needed, shape.rows, shape.cols),
                 .got = std::to_string(bytes.size())});
  Quantized q(c->grid, shape);
  c->decode(bytes.data(), q);
  std::visit(CheckFinite{tensor}, q.params);
  check_codes(q, tensor);
  return q;
}

}  // namespace pare
