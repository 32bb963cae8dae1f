// Blocks of 32 to 128 weights under one or a few scales. Layouts: formats.md §3.3.
#include <bit>
#include <cassert>

#include "pare/base/float_formats.h"
#include "pare/container/gguf_codecs.h"

namespace pare {
namespace {

// ---- evenly spaced levels

template <int bytes>
struct OneScale {
  using Family = Block;
  static constexpr int kColumns = 32, kBytes = bytes;
  static void put(const Block& p, int64_t row, int64_t block, uint8_t* out) { put_f16(p.scale(block, row), out); }
  static void take(const uint8_t* in, Block& p, int64_t row, int64_t block) { p.scale(block, row) = take_f16(in); }
};

// | d: f16 | 16 bytes: low nibble = weight i, high nibble = weight i + 16 |              weight = d * (nibble - 8)
struct Q4_0 : OneScale<18> {
  static constexpr BitPlane kPlanes[] = {{2, 4, 16, 0}};
};
// | d: f16 | 32 signed bytes |                                                           weight = d * code
struct Q8_0 : OneScale<34> {
  static constexpr BitPlane kPlanes[] = {{2, 8, 32, 0}};
  static uint8_t stored(uint8_t code) { return code ^ 0x80; }
  static uint8_t code(uint8_t stored) { return stored ^ 0x80; }
};

// ---- levels in a table

template <int columns, int bytes>
struct TableOfHalves {
  using Family = Codebook;
  static constexpr int kColumns = columns, kBytes = bytes;
  static void put(const Codebook& p, int64_t row, int64_t block, uint8_t* out) { put_f16(p.scale(block, row), out); }
  static void take(const uint8_t* in, Codebook& p, int64_t row, int64_t block) { p.scale(block, row) = take_f16(in); }
};

// | d: f16 | 16 bytes of nibbles as Q4_0 |                                               weight = d * table[nibble]
struct IQ4_NL : TableOfHalves<32, 18> {
  static constexpr BitPlane kPlanes[] = {{2, 4, 16, 0}};
};
// | d: f16 | 16 bytes: bit e is weight e, lowest first |                                 weight = d or -d
struct Q1_0 : TableOfHalves<128, 18> {
  static constexpr BitPlane kPlanes[] = {{2, 1, 1, 0}};
};

// A nibble is a sign and three bits that count up; our codes ascend from -6 to 6, with -0 before +0.
struct E2M1Codes {
  using Family = Codebook;
  static uint8_t stored(uint8_t code) { return static_cast<uint8_t>(code < 8 ? 15 - code : code - 8); }
  static uint8_t code(uint8_t stored) { return static_cast<uint8_t>(stored < 8 ? stored + 8 : 15 - stored); }
};

// | e: u8 | 16 bytes of nibbles as Q4_0 |                                                weight = 2^(e - 127) * e2m1
struct MXFP4 : E2M1Codes {
  static constexpr int kColumns = 32, kBytes = 17;
  static constexpr BitPlane kPlanes[] = {{1, 4, 16, 0}};
  static void put(const Codebook& p, int64_t row, int64_t block, uint8_t* out) {
    const uint32_t bits = std::bit_cast<uint32_t>(p.scale(block, row));
    assert((bits & 0x807FFFFFu) == 0 || bits == 0x00400000u);
    out[0] = static_cast<uint8_t>(bits >> 23);
  }
  static void take(const uint8_t* in, Codebook& p, int64_t row, int64_t block) {
    p.scale(block, row) = f8_e8m0_to_f32(in[0]);
  }
};

// | 4 x e4m3 without sign | 32 bytes: of each 16 weights the first 8 low, the others high |    weight = scale * e2m1
struct NVFP4 : E2M1Codes {
  static constexpr int kColumns = 64, kBytes = 36, kSubs = 4;
  static constexpr BitPlane kPlanes[] = {{4, 4, 8, 0}};
  static void put(const Codebook& p, int64_t row, int64_t block, uint8_t* out) {
    for (int s = 0; s < kSubs; ++s) {
      const float scale = p.scale(block * kSubs + s, row);
      const int byte = scale < 0x1p-6f ? static_cast<int>(scale * 512)
                                       : static_cast<int>((std::bit_cast<uint32_t>(scale) - (120u << 23)) >> 20);
      assert(f8_e4m3_to_f32(static_cast<uint8_t>(byte)) == scale);
      out[s] = static_cast<uint8_t>(byte);
    }
  }
  static void take(const uint8_t* in, Codebook& p, int64_t row, int64_t block) {
    // 0x7F stands for 0 in this format. A set sign is no scale: NaN, which decode_blocks refuses.
    for (int s = 0; s < kSubs; ++s)
      p.scale(block * kSubs + s, row) = f8_e4m3_to_f32(in[s] == 0x7F  ? uint8_t{0}
                                                       : in[s] < 0x7F ? in[s]
                                                                      : uint8_t{0x7F});
  }
};

constexpr CodebookSpec table(CodebookSpec::Levels levels, ScaleKind scale, int64_t group, int64_t block = 0) {
  return {levels, scale, group, block};
}

const Codec kCodecs[] = {
    plane_codec<Q4_0>("q4_0", BlockSpec{BlockSpec::Type::q4_0}),
    plane_codec<Q8_0>("q8_0", BlockSpec{BlockSpec::Type::q8_0}),
    plane_codec<IQ4_NL>("iq4_nl", table(CodebookSpec::Levels::iq4_nl, ScaleKind::f16, 32)),
    plane_codec<Q1_0>("q1_0", table(CodebookSpec::Levels::sign, ScaleKind::f16, 128)),
    plane_codec<MXFP4>("mxfp4", table(CodebookSpec::Levels::e2m1, ScaleKind::e8m0, 32)),
    plane_codec<NVFP4>("nvfp4", table(CodebookSpec::Levels::e2m1, ScaleKind::ue4m3, 16, 64)),
};

}  // namespace

std::span<const Codec> small_block_codecs() { return kCodecs; }

}  // namespace pare
