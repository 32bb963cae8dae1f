// Super-blocks of 256 weights: small integer scales under one or two halves. Layouts: formats.md §3.3.
#include "pare/container/gguf_codecs.h"

namespace pare {
namespace {

// Q2_K: 16 sub-blocks of 16                                                weight = d * sc * code - dmin * mn
//   | 16 bytes: sc low nibble, mn high | 64 bytes: weight 128 h + 32 t + l has bits 2 t of byte 32 h + l |
//   | d: f16 | dmin: f16 |
struct Q2_K {
  using Family = SuperBlock;
  static constexpr int kColumns = 256, kBytes = 84;
  static constexpr BitPlane kPlanes[] = {{16, 2, 32, 0}};
  static void put(const SuperBlock& p, int64_t row, int64_t block, uint8_t* out) {
    for (int i = 0; i < 16; ++i)
      out[i] = static_cast<uint8_t>(p.scale(block * 16 + i, row) | p.min(block * 16 + i, row) << 4);
    put_f16(p.d(block, row), out + 80);
    put_f16(p.dmin(block, row), out + 82);
  }
  static void take(const uint8_t* in, SuperBlock& p, int64_t row, int64_t block) {
    for (int i = 0; i < 16; ++i) {
      p.scale(block * 16 + i, row) = static_cast<int8_t>(in[i] & 15);
      p.min(block * 16 + i, row) = in[i] >> 4;
    }
    p.d(block, row) = take_f16(in + 80);
    p.dmin(block, row) = take_f16(in + 82);
  }
};

// Q3_K: 16 sub-blocks of 16                                                weight = d * (sc - 32) * (code - 4)
//   | 32 bytes: weight 32 t + l has bit t of byte l, the code's highest | 64 bytes: low two bits as Q2_K |
//   | 12 bytes of sc, 6 bits each: i and i + 8 are the nibbles of byte i % 8; byte 8 + i % 4 has their high two bits, |
//   | at 2 (i / 4) | d: f16 |
struct Q3_K {
  using Family = SuperBlock;
  static constexpr int kColumns = 256, kBytes = 110;
  static constexpr BitPlane kPlanes[] = {{32, 2, 32, 0}, {0, 1, 32, 2}};
  static void put(const SuperBlock& p, int64_t row, int64_t block, uint8_t* out) {
    for (int i = 0; i < 16; ++i) {
      const int sc = p.scale(block * 16 + i, row) + 32;
      out[96 + i % 8] |= static_cast<uint8_t>((sc & 15) << i / 8 * 4);
      out[104 + i % 4] |= static_cast<uint8_t>(sc >> 4 << i / 4 * 2);
    }
    put_f16(p.d(block, row), out + 108);
  }
  static void take(const uint8_t* in, SuperBlock& p, int64_t row, int64_t block) {
    for (int i = 0; i < 16; ++i) {
      const int low = in[96 + i % 8] >> i / 8 * 4 & 15, high = in[104 + i % 4] >> i / 4 * 2 & 3;
      p.scale(block * 16 + i, row) = static_cast<int8_t>((low | high << 4) - 32);
    }
    p.d(block, row) = take_f16(in + 108);
  }
};

// Q4_K: 8 sub-blocks of 32                                                 weight = d * sc * nibble - dmin * mn
//   | d: f16 | dmin: f16 | 12 bytes: 6-bit sc and mn | 128 bytes of nibbles |
//   sub-blocks 2i and 2i + 1 are the low and the high nibbles of the same 32 bytes
//
//   the 12 bytes, for i = 0…3, high bits first:
//   | byte i:      sc[i+4] bits 5,4 | sc[i] (6 bits)         |
//   | byte i + 4:  mn[i+4] bits 5,4 | mn[i] (6 bits)         |
//   | byte i + 8:  mn[i+4] bits 3…0 | sc[i+4] bits 3…0       |
struct ScalesAndMins {
  using Family = SuperBlock;
  static constexpr int kColumns = 256;

  static void put(const SuperBlock& p, int64_t row, int64_t block, uint8_t* out) {
    put_f16(p.d(block, row), out);
    put_f16(p.dmin(block, row), out + 2);
    uint8_t* scales = out + 4;
    for (int i = 0; i < 4; ++i) {
      const int64_t low = block * 8 + i, high = low + 4;
      const int sc = p.scale(high, row), mn = p.min(high, row);
      scales[i] = static_cast<uint8_t>(p.scale(low, row) | sc >> 4 << 6);
      scales[i + 4] = static_cast<uint8_t>(p.min(low, row) | mn >> 4 << 6);
      scales[i + 8] = static_cast<uint8_t>((mn & 15) << 4 | (sc & 15));
    }
  }
  static void take(const uint8_t* in, SuperBlock& p, int64_t row, int64_t block) {
    p.d(block, row) = take_f16(in);
    p.dmin(block, row) = take_f16(in + 2);
    const uint8_t* scales = in + 4;
    for (int i = 0; i < 4; ++i) {
      const int64_t low = block * 8 + i, high = low + 4;
      p.scale(low, row) = static_cast<int8_t>(scales[i] & 63);
      p.min(low, row) = scales[i + 4] & 63;
      p.scale(high, row) = static_cast<int8_t>((scales[i + 8] & 15) | scales[i] >> 6 << 4);
      p.min(high, row) = static_cast<uint8_t>(scales[i + 8] >> 4 | scales[i + 4] >> 6 << 4);
    }
  }
};
struct Q4_K : ScalesAndMins {
  static constexpr int kBytes = 144;
  static constexpr BitPlane kPlanes[] = {{16, 4, 32, 0}};
};

// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles: weight 32 t + l has bit t of byte l
struct Q5_K : ScalesAndMins {
  static constexpr int kBytes = 176;
  static constexpr BitPlane kPlanes[] = {{48, 4, 32, 0}, {16, 1, 32, 4}};
};

// Q6_K: 16 sub-blocks of 16                                                weight = d * sc * (code - 32)
//   | 128 bytes: low 4 bits | 64 bytes: high 2 bits | 16 signed bytes: sc | d: f16 |
struct Q6_K {
  using Family = SuperBlock;
  static constexpr int kColumns = 256, kBytes = 210;
  static constexpr BitPlane kPlanes[] = {{0, 4, 64, 0}, {128, 2, 32, 4}};
  static void put(const SuperBlock& p, int64_t row, int64_t block, uint8_t* out) {
    for (int i = 0; i < 16; ++i) out[192 + i] = static_cast<uint8_t>(p.scale(block * 16 + i, row));
    put_f16(p.d(block, row), out + 208);
  }
  static void take(const uint8_t* in, SuperBlock& p, int64_t row, int64_t block) {
    for (int i = 0; i < 16; ++i) p.scale(block * 16 + i, row) = static_cast<int8_t>(in[192 + i]);
    p.d(block, row) = take_f16(in + 208);
  }
};

// IQ4_XS: 8 sub-blocks of 32                                               weight = d * (sc - 32) * table[nibble]
//   | d: f16 | u16: high two bits of sc i at 2 i | 4 bytes: low nibbles of sc | 8 x 16 bytes of nibbles: weight l and |
//   | l + 16 of a sub-block share a byte |
struct IQ4_XS {
  using Family = SuperBlock;
  static constexpr int kColumns = 256, kBytes = 136;
  static constexpr BitPlane kPlanes[] = {{8, 4, 16, 0}};
  static void put(const SuperBlock& p, int64_t row, int64_t block, uint8_t* out) {
    put_f16(p.d(block, row), out);
    for (int i = 0; i < 8; ++i) {
      const int sc = p.scale(block * 8 + i, row) + 32;
      out[2 + i / 4] |= static_cast<uint8_t>(sc >> 4 << i % 4 * 2);
      out[4 + i / 2] |= static_cast<uint8_t>((sc & 15) << i % 2 * 4);
    }
  }
  static void take(const uint8_t* in, SuperBlock& p, int64_t row, int64_t block) {
    p.d(block, row) = take_f16(in);
    for (int i = 0; i < 8; ++i) {
      const int low = in[4 + i / 2] >> i % 2 * 4 & 15, high = in[2 + i / 4] >> i % 4 * 2 & 3;
      p.scale(block * 8 + i, row) = static_cast<int8_t>((low | high << 4) - 32);
    }
  }
};

const Codec kCodecs[] = {
    block_codec<Q2_K>("q2_k", SuperBlockSpec{SuperBlockSpec::Type::q2_k}),
    block_codec<Q3_K>("q3_k", SuperBlockSpec{SuperBlockSpec::Type::q3_k}),
    block_codec<Q4_K>("q4_k", SuperBlockSpec{SuperBlockSpec::Type::q4_k}),
    block_codec<Q5_K>("q5_k", SuperBlockSpec{SuperBlockSpec::Type::q5_k}),
    block_codec<Q6_K>("q6_k", SuperBlockSpec{SuperBlockSpec::Type::q6_k}),
    block_codec<IQ4_XS>("iq4_xs", SuperBlockSpec{SuperBlockSpec::Type::iq4_xs}),
};

}  // namespace

std::span<const Codec> super_block_codecs() { return kCodecs; }

}  // namespace pare
