// Inside container/ only: what turns blocks of GGUF into codes and back. A type is a row of bit planes, read and
// written by one mechanism, and two functions for its scales; see gguf_small_blocks.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "pare/base/threads.h"
#include "pare/grid/quantized.h"

namespace pare {

// Some bits of every code of a block. `run` weights that follow each other lie in as many bytes; the next runs stand
// above them in the same bytes until those are full:
//
//   weight e, bits [code_bit, code_bit + bits) of its code:   per = 8 / bits
//   byte  offset + e / (run · per) · run + e % run,           shifted up by  bits · (e / run % per)
struct BitPlane {
  int offset, bits, run, code_bit;
};

template <BitPlane p, int columns>
void store_plane(const uint8_t* codes, uint8_t* block) {
  constexpr int kPer = 8 / p.bits, kMask = (1 << p.bits) - 1;
  uint8_t* out = block + p.offset;
  for (int first = 0; first < columns; first += p.run * kPer, out += p.run)
    for (int i = 0; i < p.run; ++i) {
      int byte = 0;
      for (int part = 0; part < kPer; ++part)
        byte |= (codes[first + part * p.run + i] >> p.code_bit & kMask) << (p.bits * part);
      out[i] = static_cast<uint8_t>(byte);
    }
}

template <BitPlane p, int columns>
void load_plane(const uint8_t* block, uint8_t* codes) {
  constexpr int kPer = 8 / p.bits, kMask = (1 << p.bits) - 1;
  const uint8_t* in = block + p.offset;
  for (int first = 0; first < columns; first += p.run * kPer, in += p.run)
    for (int part = 0; part < kPer; ++part)
      for (int i = 0; i < p.run; ++i) {
        const int bits = (in[i] >> (p.bits * part) & kMask) << p.code_bit;
        uint8_t& code = codes[first + part * p.run + i];
        code = static_cast<uint8_t>(p.code_bit == 0 ? bits : code | bits);
      }
}

// What a type that lies in bit planes says of itself. The planes of low bits come first.
//   using Family;  static constexpr int kColumns, kBytes;  static constexpr BitPlane kPlanes[];
//   static void put(const Family&, int64_t row, int64_t block, uint8_t* out)         its scales
//   static void take(const uint8_t* in, Family&, int64_t row, int64_t block)
// and, where files spell codes differently, uint8_t stored(uint8_t code) and uint8_t code(uint8_t stored).
// Instead of planes a type may have put_codes and take_codes of its own.
template <class T>
void put_planes(const uint8_t* codes, uint8_t* out) {
  uint8_t spelled[T::kColumns];
  if constexpr (requires { T::stored(uint8_t{}); }) {
    for (int i = 0; i < T::kColumns; ++i) spelled[i] = T::stored(codes[i]);
    codes = spelled;
  }
  [&]<size_t... i>(std::index_sequence<i...>) { (store_plane<T::kPlanes[i], T::kColumns>(codes, out), ...); }
  (std::make_index_sequence<std::size(T::kPlanes)>());
}
template <class T>
void take_planes(const uint8_t* in, uint8_t* codes) {
  [&]<size_t... i>(std::index_sequence<i...>) { (load_plane<T::kPlanes[i], T::kColumns>(in, codes), ...); }
  (std::make_index_sequence<std::size(T::kPlanes)>());
  if constexpr (requires { T::code(uint8_t{}); })
    for (int i = 0; i < T::kColumns; ++i) codes[i] = T::code(codes[i]);
}
template <class T>
void put_codes(const uint8_t* codes, uint8_t* out) {
  if constexpr (requires { T::kPlanes; })
    put_planes<T>(codes, out);
  else
    T::put_codes(codes, out);
}
template <class T>
void take_codes(const uint8_t* in, uint8_t* codes) {
  if constexpr (requires { T::kPlanes; })
    take_planes<T>(in, codes);
  else
    T::take_codes(in, codes);
}

// One row per grid that GGUF packs; everything else is derived from it.
struct Codec {
  std::string_view type;
  Grid grid;
  void (*encode)(const Quantized& q, std::byte* out);
  void (*decode)(const std::byte* bytes, Quantized& q);
};

inline constexpr int64_t kBlockTileRows = 64;

// Calls body(row, block) for all blocks, tiles of rows in parallel. Within a tile block after block: the planes of
// parameters hold neighbouring rows side by side.
template <class Body>
void for_blocks(Shape s, int64_t columns, const Body& body) {
  parallel_for((s.rows + kBlockTileRows - 1) / kBlockTileRows, [&](int64_t tile) {
    const int64_t last = std::min(s.rows, (tile + 1) * kBlockTileRows);
    for (int64_t block = 0; block < s.cols / columns; ++block)
      for (int64_t row = tile * kBlockTileRows; row < last; ++row) body(row, block);
  });
}

template <class T>
constexpr Codec block_codec(std::string_view type, Grid grid) {
  return {type, grid,
          [](const Quantized& q, std::byte* out) {
            const auto& params = std::get<typename T::Family>(q.params);
            const int64_t blocks = q.shape().cols / T::kColumns;
            for_blocks(q.shape(), T::kColumns, [&](int64_t row, int64_t block) {
              uint8_t packed[T::kBytes] = {};
              T::put(params, row, block, packed);
              put_codes<T>(q.codes.row(row) + block * T::kColumns, packed);
              std::memcpy(out + (row * blocks + block) * T::kBytes, packed, T::kBytes);
            });
          },
          [](const std::byte* bytes, Quantized& q) {
            auto& params = std::get<typename T::Family>(q.params);
            const int64_t blocks = q.shape().cols / T::kColumns;
            for_blocks(q.shape(), T::kColumns, [&](int64_t row, int64_t block) {
              uint8_t packed[T::kBytes];
              std::memcpy(packed, bytes + (row * blocks + block) * T::kBytes, T::kBytes);
              T::take(packed, params, row, block);
              take_codes<T>(packed, q.codes.row(row) + block * T::kColumns);
            });
          }};
}

// Floats in blocks: little-endian, as every machine Pare runs on.
void put_f16(float x, uint8_t* out);  // asserts that x is exact
float take_f16(const uint8_t* in);

std::span<const Codec> small_block_codecs();
std::span<const Codec> super_block_codecs();
std::span<const Codec> lattice_codecs();

}  // namespace pare
