// GPTQ's bit strings: codes of b bits follow each other, least significant bit first, cut into 32-bit little-endian
// words. So eight codes are always exactly b bytes, and 32 codes b words, for every b.
// Source: hf_checkpoints.md A.1.
#pragma once

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

}  // namespace pare
