// The bit strings of all formats: codes of b bits follow each other, least significant bit first, cut into 32-bit
// little-endian words. So eight codes are always exactly b bytes, and 32 codes b words, for every b. Formats differ in
// what runs along the string (inputs or outputs) and in the order within a run of eight.
// Source: hf_checkpoints.md A.1 to A.3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "pare/tensor/matrix.h"

namespace pare {

inline constexpr int64_t kPackRun = 32;  // codes that fill whole words at any width

// `codes.size()` is a multiple of 32, `words.size()` = codes.size() * bits / 32. bits 1…8.
void pack_bits(int bits, std::span<const uint8_t> codes, std::span<uint32_t> words);
void unpack_bits(int bits, std::span<const uint32_t> words, std::span<uint8_t> codes);

// A matrix of codes (outputs x inputs) as GPTQ stores it: packed down the inputs, one column of words per output.
//
//   codes   [N rows][K cols]            words [K * bits / 32][N]
//   row n:  c0 c1 c2 … c31 | c32 …  →   column n: word 0 = c0 | c1 << bits | …, word 1, …
//
// Column c of the codes stands in place order[c] of the words; an empty order means in place. Both multiples of 32.
// `words` need not be aligned. Parallel over rows.
void pack_columns(int bits, const Plane<uint8_t>& codes, std::span<const int32_t> order, std::span<std::byte> words);
void unpack_columns(int bits, std::span<const std::byte> words, std::span<const int32_t> order, Plane<uint8_t>& codes);

// Codes row by row, each row a bit string of its own at a stride of words.size() / codes.rows() bytes; what the codes
// leave of it is 0. Any size. bits 1…8. Parallel over rows.
struct RowOrder8 {
  // Place i of a run of eight places holds column place[i] of the run.
  std::array<uint8_t, 8> place = {0, 1, 2, 3, 4, 5, 6, 7};
  bool trivial() const { return place == RowOrder8{}.place; }
};
void pack_rows(int bits, const Plane<uint8_t>& codes, std::span<std::byte> words, const RowOrder8& order = {});
void unpack_rows(int bits, std::span<const std::byte> words, Plane<uint8_t>& codes, const RowOrder8& order = {});
inline int64_t packed_words(int bits, int64_t codes) { return (codes * bits + 31) / 32; }

// Column c of the result is column order[c] of the codes (gathered), or the other way round (scattered). An empty order
// means in place.
Plane<uint8_t> gathered(const Plane<uint8_t>& codes, std::span<const int32_t> order);
Plane<uint8_t> scattered(const Plane<uint8_t>& codes, std::span<const int32_t> order);
Plane<uint8_t> transposed_codes(const Plane<uint8_t>& codes);

}  // namespace pare
