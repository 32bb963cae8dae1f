// Blocks of 32 to 128 weights under one or a few scales. Layouts: formats.md §3.3.
#include <bit>
#include <cassert>

#include "pare/base/float_formats.h"
#include "pare/container/gguf_codecs.h"

namespace pare {
namespace {

// ---- evenly spaced levels

template <int columns, int bytes, int scale_at = 0>
struct OneScale {
  using Family = Block;
  static constexpr int kColumns = columns, kBytes = bytes;
  static void put(const Block& p, int64_t row, int64_t block, uint8_t* out) {
    put_f16(p.scale(block, row), out + scale_at);
  }
  static void take(const uint8_t* in, Block& p, int64_t row, int64_t block) {
    p.scale(block, row) = take_f16(in + scale_at);
  }
};
// The file adds its second number, our min is taken away.
template <int bytes>
struct ScaleAndMin {
  using Family = Block;
  static constexpr int kColumns = 32, kBytes = bytes;
  static void put(const Block& p, int64_t row, int64_t block, uint8_t* out) {
    put_f16(p.scale(block, row), out);
    put_f16(-p.min(block, row), out + 2);
  }
  static void take(const uint8_t* in, Block& p, int64_t row, int64_t block) {
    p.scale(block, row) = take_f16(in);
    p.min(block, row) = -take_f16(in + 2);
  }
};

// | d: f16 | 16 bytes: low nibble = weight i, high nibble = weight i + 16 |              weight = d * (nibble - 8)
struct Q4_0 : OneScale<32, 18> {
  static constexpr BitPlane kPlanes[] = {{2, 4, 16, 0}};
};
// | d: f16 | m: f16 | 16 bytes of nibbles as Q4_0 |                                      weight = d * nibble + m
struct Q4_1 : ScaleAndMin<20> {
  static constexpr BitPlane kPlanes[] = {{4, 4, 16, 0}};
};
// | d: f16 | 4 bytes: bit e is weight e's fifth | 16 bytes of nibbles as Q4_0 |          weight = d * (code - 16)
struct Q5_0 : OneScale<32, 22> {
  static constexpr BitPlane kPlanes[] = {{6, 4, 16, 0}, {2, 1, 1, 4}};
};
// | d: f16 | m: f16 | 4 bytes of fifth bits | 16 bytes of nibbles as Q4_0 |              weight = d * code + m
struct Q5_1 : ScaleAndMin<24> {
  static constexpr BitPlane kPlanes[] = {{8, 4, 16, 0}, {4, 1, 1, 4}};
};
// | d: f16 | 16 bytes: four weights each, lowest bits first |                            weight = d * (code - 1)
struct Q2_0 : OneScale<64, 18> {
  static constexpr BitPlane kPlanes[] = {{2, 2, 1, 0}};
};
// | 64 bytes: weight 128 h + 32 t + l has bits 2 t of byte 32 h + l | d: f16 |            weight = d * (code - 1)
struct TQ2_0 : OneScale<256, 66, 64> {
  static constexpr BitPlane kPlanes[] = {{0, 2, 32, 0}};
};

// | 48 bytes of five codes | 4 bytes of four | d: f16 |                                  weight = d * (code - 1)
// A byte is the fraction 0.t0 t1 t2 … in base three, times 256 and rounded up. In the first 32 bytes the n-th digits
// are weights 32 n …, in the next 16 weights 160 + 16 n …, in the last 4 weights 240 + 4 n ….
struct TQ1_0 : OneScale<256, 54, 52> {
  struct Run {
    int first_byte, bytes, first_weight, digits;
  };
  static constexpr Run kRuns[] = {{0, 32, 0, 5}, {32, 16, 160, 5}, {48, 4, 240, 4}};

  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (const Run& run : kRuns)
      for (int i = 0; i < run.bytes; ++i) {
        int value = 0;
        for (int n = 0; n < 5; ++n)
          value = 3 * value + (n < run.digits ? codes[run.first_weight + n * run.bytes + i] : 0);
        out[run.first_byte + i] = static_cast<uint8_t>((value * 256 + 242) / 243);
      }
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (const Run& run : kRuns)
      for (int i = 0; i < run.bytes; ++i) {
        int fraction = in[run.first_byte + i];
        for (int n = 0; n < run.digits; ++n) {
          codes[run.first_weight + n * run.bytes + i] = static_cast<uint8_t>(fraction * 3 >> 8);
          fraction = fraction * 3 & 255;
        }
      }
  }
};

// | d: f16 | 32 signed bytes |                                                           weight = d * code
struct Q8_0 : OneScale<32, 34> {
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
    block_codec<Q4_0>("q4_0", BlockSpec{BlockSpec::Type::q4_0}),
    block_codec<Q4_1>("q4_1", BlockSpec{BlockSpec::Type::q4_1}),
    block_codec<Q5_0>("q5_0", BlockSpec{BlockSpec::Type::q5_0}),
    block_codec<Q5_1>("q5_1", BlockSpec{BlockSpec::Type::q5_1}),
    block_codec<Q8_0>("q8_0", BlockSpec{BlockSpec::Type::q8_0}),
    block_codec<Q2_0>("q2_0", BlockSpec{BlockSpec::Type::q2_0}),
    block_codec<TQ1_0>("tq1_0", BlockSpec{BlockSpec::Type::tq1_0}),
    block_codec<TQ2_0>("tq2_0", BlockSpec{BlockSpec::Type::tq2_0}),
    block_codec<IQ4_NL>("iq4_nl", table(CodebookSpec::Levels::iq4_nl, ScaleKind::f16, 32)),
    block_codec<Q1_0>("q1_0", table(CodebookSpec::Levels::sign, ScaleKind::f16, 128)),
    block_codec<MXFP4>("mxfp4", table(CodebookSpec::Levels::e2m1, ScaleKind::e8m0, 32)),
    block_codec<NVFP4>("nvfp4", table(CodebookSpec::Levels::e2m1, ScaleKind::ue4m3, 16, 64)),
};

}  // namespace

std::span<const Codec> small_block_codecs() { return kCodecs; }

}  // namespace pare
