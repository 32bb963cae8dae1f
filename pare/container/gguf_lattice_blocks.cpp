// Lattices: 256 weights whose codes name points of a codebook. Layouts: formats.md §3.3. In the pictures, g is the run
// of 32 weights and l the vector of 8 within it; "sign byte" is one bit per weight, lowest first, set for minus. Where
// only seven are kept, the eighth makes the number of minus signs even.
#include <bit>

#include "pare/container/gguf_codecs.h"
#include "pare/grid/lattice.h"

namespace pare {
namespace {

using Type = LatticeSpec::Type;

uint32_t take_u32(const uint8_t* in) {
  uint32_t word;
  std::memcpy(&word, in, sizeof word);
  return word;
}
void or_u32(uint32_t bits, uint8_t* out) {
  const uint32_t word = take_u32(out) | bits;
  std::memcpy(out, &word, sizeof word);
}
uint32_t take_u16(const uint8_t* in) { return static_cast<uint32_t>(in[0] | in[1] << 8); }
void or_u16(uint32_t bits, uint8_t* out) {
  out[0] |= static_cast<uint8_t>(bits);
  out[1] |= static_cast<uint8_t>(bits >> 8);
}
uint32_t eight_signs(uint32_t seven) { return seven | static_cast<uint32_t>(std::popcount(seven) % 2) << 7; }

template <Type type, int bytes>
struct LatticeBlock {
  using Family = Lattice;
  static constexpr int kColumns = 256, kBytes = bytes;

  static const LatticeTraits& traits() { return pare::traits(LatticeSpec{type}); }
  static uint32_t point(const uint8_t* codes) { return static_cast<uint32_t>(point_of(traits(), codes)); }
  static uint32_t signs(const uint8_t* codes) { return minus_of(traits(), codes, 8); }
  static void expand(uint32_t point, uint32_t minus, uint8_t* codes) {
    codes_of_point(traits(), static_cast<int>(point), minus, codes);
  }
};

// Sub-scales as nibbles, the lower half of a run in the low one.
template <int at, int subs>
struct NibbleScales {
  static void put(const Lattice& p, int64_t row, int64_t block, uint8_t* out) {
    for (int i = 0; i < subs; ++i) out[at + i / 2] |= static_cast<uint8_t>(p.scale(block * subs + i, row) << i % 2 * 4);
  }
  static void take(const uint8_t* in, Lattice& p, int64_t row, int64_t block) {
    for (int i = 0; i < subs; ++i) p.scale(block * subs + i, row) = in[at + i / 2] >> i % 2 * 4 & 15;
  }
};
// d in front of what Scales keeps.
template <class Scales>
struct SuperScaleFirst {
  static void put(const Lattice& p, int64_t row, int64_t block, uint8_t* out) {
    put_f16(p.d(block, row), out);
    Scales::put(p, row, block, out);
  }
  static void take(const uint8_t* in, Lattice& p, int64_t row, int64_t block) {
    p.d(block, row) = take_f16(in);
    Scales::take(in, p, row, block);
  }
};
// Sub-scales in the top four bits of eight words, stride bytes apart.
template <int at, int stride>
struct TopScales {
  static void put(const Lattice& p, int64_t row, int64_t block, uint8_t* out) {
    for (int g = 0; g < 8; ++g) or_u32(uint32_t{p.scale(block * 8 + g, row)} << 28, out + at + g * stride);
  }
  static void take(const uint8_t* in, Lattice& p, int64_t row, int64_t block) {
    for (int g = 0; g < 8; ++g)
      p.scale(block * 8 + g, row) = static_cast<uint8_t>(take_u32(in + at + g * stride) >> 28);
  }
};

// | d: f16 | 8 x (4 bytes: points | u32: seven signs of vector l at 7 l, scale at 28) |
struct IQ2_XXS : LatticeBlock<Type::iq2_xxs, 66>, SuperScaleFirst<TopScales<6, 8>> {
  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      uint8_t* run = out + 2 + v / 4 * 8;
      run[v % 4] = static_cast<uint8_t>(point(codes));
      or_u32((signs(codes) & 127) << 7 * (v % 4), run + 4);
    }
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint8_t* run = in + 2 + v / 4 * 8;
      expand(run[v % 4], eight_signs(take_u32(run + 4) >> 7 * (v % 4) & 127), codes);
    }
  }
};

// | d: f16 | 32 x u16: point, seven signs at 9 | 8 bytes of nibble scales |
struct IQ2_XS : LatticeBlock<Type::iq2_xs, 74>, SuperScaleFirst<NibbleScales<66, 16>> {
  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (int v = 0; v < 32; ++v, codes += 8) or_u16(point(codes) | (signs(codes) & 127) << 9, out + 2 + 2 * v);
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint32_t word = take_u16(in + 2 + 2 * v);
      expand(word & 511, eight_signs(word >> 9), codes);
    }
  }
};

// | d: f16 | 32 bytes: points | 32 sign bytes | 8 bytes: two more bits of point l at 2 l | 8 bytes of nibble scales |
struct IQ2_S : LatticeBlock<Type::iq2_s, 82>, SuperScaleFirst<NibbleScales<74, 16>> {
  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint32_t p = point(codes);
      out[2 + v] = static_cast<uint8_t>(p);
      out[34 + v] = static_cast<uint8_t>(signs(codes));
      out[66 + v / 4] |= static_cast<uint8_t>(p >> 8 << 2 * (v % 4));
    }
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (int v = 0; v < 32; ++v, codes += 8)
      expand(in[2 + v] | (in[66 + v / 4] >> 2 * (v % 4) & 3u) << 8, in[34 + v], codes);
  }
};

// | d: f16 | 64 bytes: points of four | 8 x u32: seven signs of vector l at 7 l, scale at 28 |
struct IQ3_XXS : LatticeBlock<Type::iq3_xxs, 98>, SuperScaleFirst<TopScales<66, 4>> {
  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      out[2 + 2 * v] = static_cast<uint8_t>(point(codes));
      out[3 + 2 * v] = static_cast<uint8_t>(point(codes + 4));
      or_u32((signs(codes) & 127) << 7 * (v % 4), out + 66 + v / 4 * 4);
    }
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint32_t minus = eight_signs(take_u32(in + 66 + v / 4 * 4) >> 7 * (v % 4) & 127);
      expand(in[2 + 2 * v], minus, codes);
      expand(in[3 + 2 * v], minus >> 4, codes + 4);
    }
  }
};

// | d: f16 | 64 bytes: points of four | 8 bytes: bit i is the ninth of a run's point i | 32 sign bytes |
// | 4 bytes of nibble scales |
struct IQ3_S : LatticeBlock<Type::iq3_s, 110>, SuperScaleFirst<NibbleScales<106, 8>> {
  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (int v = 0; v < 64; ++v) {
      const uint32_t p = point(codes + 4 * v);
      out[2 + v] = static_cast<uint8_t>(p);
      out[66 + v / 8] |= static_cast<uint8_t>(p >> 8 << v % 8);
    }
    for (int v = 0; v < 32; ++v) out[74 + v] = static_cast<uint8_t>(signs(codes + 8 * v));
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (int v = 0; v < 64; ++v) {
      const uint32_t minus = static_cast<uint32_t>(in[74 + v / 2] >> v % 2 * 4);
      expand(in[2 + v] | (in[66 + v / 8] >> v % 8 & 1u) << 8, minus, codes + 4 * v);
    }
  }
};

// | d: f16 | 32 bytes: points | 8 x u16: three more bits of point l at 3 l, scale at 12, bit 15: shift down |
struct IQ1_S : LatticeBlock<Type::iq1_s, 50> {
  static void put(const Lattice& p, int64_t row, int64_t block, uint8_t* out) {
    put_f16(p.d(block, row), out);
    for (int64_t g = 0; g < 8; ++g)
      or_u16(p.scale(block * 8 + g, row) << 12 | (p.shift(block * 8 + g, row) ? 0u : 0x8000u), out + 34 + 2 * g);
  }
  static void take(const uint8_t* in, Lattice& p, int64_t row, int64_t block) {
    p.d(block, row) = take_f16(in);
    for (int64_t g = 0; g < 8; ++g) {
      const uint32_t word = take_u16(in + 34 + 2 * g);
      p.scale(block * 8 + g, row) = word >> 12 & 7;
      p.shift(block * 8 + g, row) = !(word >> 15);
    }
  }
  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint32_t p = point(codes);
      out[2 + v] = static_cast<uint8_t>(p);
      or_u16(p >> 8 << 3 * (v % 4), out + 34 + v / 4 * 2);
    }
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint32_t word = take_u16(in + 34 + v / 4 * 2);
      expand(in[2 + v] | (word >> 3 * (v % 4) & 7) << 8, word >> 15, codes);
    }
  }
};

// | 32 bytes: points | 16 bytes, a nibble per vector: three more bits, bit 3: shift down | 4 x u16: four scales of
// three bits; their top nibbles are d, an f16, lowest first |
struct IQ1_M : LatticeBlock<Type::iq1_m, 56> {
  static void put(const Lattice& p, int64_t row, int64_t block, uint8_t* out) {
    uint8_t d[2];
    put_f16(p.d(block, row), d);
    for (int i = 0; i < 4; ++i) or_u16((take_u16(d) >> 4 * i & 15) << 12, out + 48 + 2 * i);
    for (int i = 0; i < 16; ++i) or_u16(p.scale(block * 16 + i, row) << 3 * (i % 4), out + 48 + i / 4 * 2);
  }
  static void take(const uint8_t* in, Lattice& p, int64_t row, int64_t block) {
    uint8_t d[2] = {};
    for (int i = 0; i < 4; ++i) or_u16(take_u16(in + 48 + 2 * i) >> 12 << 4 * i, d);
    p.d(block, row) = take_f16(d);
    for (int i = 0; i < 16; ++i)
      p.scale(block * 16 + i, row) = static_cast<uint8_t>(take_u16(in + 48 + i / 4 * 2) >> 3 * (i % 4) & 7);
  }
  static void put_codes(const uint8_t* codes, uint8_t* out) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint32_t p = point(codes), minus = signs(codes) ? 8 : 0;
      out[v] = static_cast<uint8_t>(p);
      out[32 + v / 2] |= static_cast<uint8_t>((p >> 8 | minus) << v % 2 * 4);
    }
  }
  static void take_codes(const uint8_t* in, uint8_t* codes) {
    for (int v = 0; v < 32; ++v, codes += 8) {
      const uint32_t nibble = in[32 + v / 2] >> v % 2 * 4 & 15u;
      expand(in[v] | (nibble & 7) << 8, nibble & 8, codes);
    }
  }
};

template <class T>
Codec lattice_codec() {
  return block_codec<T>(T::traits().name, LatticeSpec{T::traits().type});
}

}  // namespace

std::span<const Codec> lattice_codecs() {
  static const Codec kCodecs[] = {lattice_codec<IQ1_S>(),  lattice_codec<IQ1_M>(), lattice_codec<IQ2_XXS>(),
                                  lattice_codec<IQ2_XS>(), lattice_codec<IQ2_S>(), lattice_codec<IQ3_XXS>(),
                                  lattice_codec<IQ3_S>()};
  return kCodecs;
}

}  // namespace pare
