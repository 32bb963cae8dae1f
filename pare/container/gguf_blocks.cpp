#include "pare/container/gguf_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "pare/base/error.h"
#include "pare/base/float_formats.h"
#include "pare/base/threads.h"

// Layouts: formats.md §3.3. Files are little-endian, as every machine Pare runs on.
namespace pare {
namespace {

// Q4_0: 32 weights, 18 bytes                                                        weight = d * (nibble - 8)
//   | d: f16 | 16 bytes: low nibble = weight i, high nibble = weight i + 16 |
struct BlockQ4_0 {
  uint16_t d;
  uint8_t nibbles[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// Q8_0: 32 weights, 34 bytes                                                        weight = d * code
//   | d: f16 | 32 signed bytes |
struct BlockQ8_0 {
  uint16_t d;
  int8_t codes[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// Q4_K: 256 weights in 8 sub-blocks of 32, 144 bytes                                weight = d * sc * nibble - dmin *
// mn
//   | d: f16 | dmin: f16 | 12 bytes: 6-bit sc and mn | 128 bytes of nibbles |
//   sub-blocks 2i and 2i + 1 are the low and the high nibbles of the same 32 bytes
//
//   the 12 bytes, for i = 0…3, high bits first:
//   | byte i:      sc[i+4] bits 5,4 | sc[i] (6 bits)         |
//   | byte i + 4:  mn[i+4] bits 5,4 | mn[i] (6 bits)         |
//   | byte i + 8:  mn[i+4] bits 3…0 | sc[i+4] bits 3…0       |
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t nibbles[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// Q6_K: 256 weights in 16 sub-blocks of 16, 210 bytes                               weight = d * sc * (code - 32)
//   | 128 bytes: low 4 bits | 64 bytes: high 2 bits | 16 signed bytes: sc | d: f16 |
//   each half of 128 weights has 64 low and 32 high bytes; its weight 32 t + l (t = 0…3, l = 0…31) lies in
//   low[32 (t % 2) + l], low nibble for t < 2, high for t ≥ 2, and in bits 2 t and 2 t + 1 of high[l]
struct BlockQ6_K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

template <class B>
inline constexpr int64_t kColumns = std::is_same_v<B, BlockQ4_0> || std::is_same_v<B, BlockQ8_0> ? 32 : 256;

uint16_t f16_bits(float x) {
  assert(round_to_f16(x) == x);
  return f32_to_f16(x);
}

// ---- writing: one block of one row

void pack(const Block& p, int64_t row, int64_t block, const uint8_t* codes, BlockQ4_0& out) {
  out.d = f16_bits(p.scale(block, row));
  for (int i = 0; i < 16; ++i) out.nibbles[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

void pack(const Block& p, int64_t row, int64_t block, const uint8_t* codes, BlockQ8_0& out) {
  out.d = f16_bits(p.scale(block, row));
  for (int i = 0; i < 32; ++i) out.codes[i] = static_cast<int8_t>(codes[i] - 128);
}

void pack(const SuperBlock& p, int64_t row, int64_t block, const uint8_t* codes, BlockQ4_K& out) {
  out.d = f16_bits(p.d(block, row));
  out.dmin = f16_bits(p.dmin(block, row));
  for (int i = 0; i < 4; ++i) {
    const int64_t low = block * 8 + i, high = low + 4;
    const int sc = p.scale(high, row), mn = p.min(high, row);
    out.scales[i] = static_cast<uint8_t>(p.scale(low, row) | sc >> 4 << 6);
    out.scales[i + 4] = static_cast<uint8_t>(p.min(low, row) | mn >> 4 << 6);
    out.scales[i + 8] = static_cast<uint8_t>((mn & 15) << 4 | (sc & 15));
  }
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l)
      out.nibbles[32 * pair + l] = static_cast<uint8_t>(codes[64 * pair + l] | codes[64 * pair + 32 + l] << 4);
}

void pack(const SuperBlock& p, int64_t row, int64_t block, const uint8_t* codes, BlockQ6_K& out) {
  out.d = f16_bits(p.d(block, row));
  for (int i = 0; i < 16; ++i) out.scales[i] = p.scale(block * 16 + i, row);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* c = codes + 128 * half;
    uint8_t *low = out.low + 64 * half, *high = out.high + 32 * half;
    for (int l = 0; l < 32; ++l) {
      low[l] = static_cast<uint8_t>((c[l] & 15) | (c[l + 64] & 15) << 4);
      low[l + 32] = static_cast<uint8_t>((c[l + 32] & 15) | (c[l + 96] & 15) << 4);
      high[l] = static_cast<uint8_t>(c[l] >> 4 | c[l + 32] >> 4 << 2 | c[l + 64] >> 4 << 4 | c[l + 96] >> 4 << 6);
    }
  }
}

// ---- reading

void unpack(const BlockQ4_0& in, Block& p, int64_t row, int64_t block, uint8_t* codes) {
  p.scale(block, row) = f16_to_f32(in.d);
  for (int i = 0; i < 16; ++i) codes[i] = in.nibbles[i] & 15;
  for (int i = 0; i < 16; ++i) codes[i + 16] = in.nibbles[i] >> 4;
}

void unpack(const BlockQ8_0& in, Block& p, int64_t row, int64_t block, uint8_t* codes) {
  p.scale(block, row) = f16_to_f32(in.d);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(in.codes[i] + 128);
}

void unpack(const BlockQ4_K& in, SuperBlock& p, int64_t row, int64_t block, uint8_t* codes) {
  p.d(block, row) = f16_to_f32(in.d);
  p.dmin(block, row) = f16_to_f32(in.dmin);
  for (int i = 0; i < 4; ++i) {
    const int64_t low = block * 8 + i, high = low + 4;
    p.scale(low, row) = static_cast<int8_t>(in.scales[i] & 63);
    p.min(low, row) = in.scales[i + 4] & 63;
    p.scale(high, row) = static_cast<int8_t>((in.scales[i + 8] & 15) | in.scales[i] >> 6 << 4);
    p.min(high, row) = static_cast<uint8_t>(in.scales[i + 8] >> 4 | in.scales[i + 4] >> 6 << 4);
  }
  for (int pair = 0; pair < 4; ++pair, codes += 64)
    for (int l = 0; l < 32; ++l) {
      codes[l] = in.nibbles[32 * pair + l] & 15;
      codes[l + 32] = in.nibbles[32 * pair + l] >> 4;
    }
}

void unpack(const BlockQ6_K& in, SuperBlock& p, int64_t row, int64_t block, uint8_t* codes) {
  p.d(block, row) = f16_to_f32(in.d);
  for (int i = 0; i < 16; ++i) p.scale(block * 16 + i, row) = in.scales[i];
  for (int half = 0; half < 2; ++half, codes += 128) {
    const uint8_t *low = in.low + 64 * half, *high = in.high + 32 * half;
    for (int l = 0; l < 32; ++l) {
      codes[l] = static_cast<uint8_t>((low[l] & 15) | (high[l] & 3) << 4);
      codes[l + 32] = static_cast<uint8_t>((low[l + 32] & 15) | (high[l] >> 2 & 3) << 4);
      codes[l + 64] = static_cast<uint8_t>(low[l] >> 4 | (high[l] >> 4 & 3) << 4);
      codes[l + 96] = static_cast<uint8_t>(low[l + 32] >> 4 | high[l] >> 6 << 4);
    }
  }
}

// ---- whole matrices, in tiles of rows

constexpr int64_t kTileRows = 64;

template <class B, class Family>
void encode(const Family& params, const Plane<uint8_t>& codes, std::byte* out) {
  const int64_t blocks = codes.cols() / kColumns<B>;
  parallel_for((codes.rows() + kTileRows - 1) / kTileRows, [&](int64_t tile) {
    const int64_t last = std::min(codes.rows(), (tile + 1) * kTileRows);
    for (int64_t row = tile * kTileRows; row < last; ++row)
      for (int64_t block = 0; block < blocks; ++block) {
        B packed;
        pack(params, row, block, codes.row(row) + block * kColumns<B>, packed);
        std::memcpy(out + (row * blocks + block) * static_cast<int64_t>(sizeof(B)), &packed, sizeof(B));
      }
  });
}

// Rows of a tile are read block by block: the planes of parameters hold neighbouring rows side by side.
template <class B, class Family>
void decode(const std::byte* bytes, Family& params, Plane<uint8_t>& codes) {
  const int64_t blocks = codes.cols() / kColumns<B>;
  parallel_for((codes.rows() + kTileRows - 1) / kTileRows, [&](int64_t tile) {
    const int64_t last = std::min(codes.rows(), (tile + 1) * kTileRows);
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t row = tile * kTileRows; row < last; ++row) {
        B packed;
        std::memcpy(&packed, bytes + (row * blocks + block) * static_cast<int64_t>(sizeof(B)), sizeof(B));
        unpack(packed, params, row, block, codes.row(row) + block * kColumns<B>);
      }
  });
}

// One row per grid that GGUF packs; everything else is derived from it.
struct Codec {
  std::string_view type;
  Grid grid;
  void (*encode)(const Quantized& q, std::byte* out);
  void (*decode)(const std::byte* bytes, Quantized& q);
};

template <class B, class Family>
constexpr Codec codec(std::string_view type, Grid grid) {
  return {type, grid, [](const Quantized& q, std::byte* out) { encode<B>(std::get<Family>(q.params), q.codes, out); },
          [](const std::byte* bytes, Quantized& q) { decode<B>(bytes, std::get<Family>(q.params), q.codes); }};
}

const Codec kCodecs[] = {codec<BlockQ4_0, Block>("q4_0", BlockSpec{BlockSpec::Type::q4_0}),
                         codec<BlockQ8_0, Block>("q8_0", BlockSpec{BlockSpec::Type::q8_0}),
                         codec<BlockQ4_K, SuperBlock>("q4_k", SuperBlockSpec{SuperBlockSpec::Type::q4_k}),
                         codec<BlockQ6_K, SuperBlock>("q6_k", SuperBlockSpec{SuperBlockSpec::Type::q6_k})};

const Codec* codec_of(std::string_view type) {
  for (const Codec& c : kCodecs)
    if (c.type == type) return &c;
  return nullptr;
}
const Codec* codec_of(const Grid& grid) {
  for (const Codec& c : kCodecs)
    if (c.grid == grid) return &c;
  return nullptr;
}

void check_finite(const Plane<float>& scales, const std::string& tensor) {
  for (int64_t block = 0; block < scales.rows(); ++block)
    for (int64_t row = 0; row < scales.cols(); ++row)
      if (!std::isfinite(scales(block, row)))
        throw Error({.what = "a block's scale is not a number",
                     .where = fmt::format("{}, row {}, block {}", tensor, row, block),
                     .expected = "finite f16",
                     .got = fmt::format("{}", scales(block, row)),
                     .remedy = "the file is damaged or was quantized from damaged weights: get it again"});
}
void check_finite(const Quantized& q, const std::string& tensor) {
  if (const auto* block = std::get_if<Block>(&q.params)) return check_finite(block->scale, tensor);
  const auto& super = std::get<SuperBlock>(q.params);
  check_finite(super.d, tensor);
  check_finite(super.dmin, tensor);
}

}  // namespace

const Grid* grid_of(const GgmlTypeInfo& type) {
  const Codec* c = codec_of(type.name);
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
  check_finite(q, tensor);
  return q;
}

}  // namespace pare
