#include "pare/container/bit_packing.h"

#include <numeric>

#include "tests/container/files.h"

namespace pare::test {
namespace {

// A.1 of hf_checkpoints.md: measured with the reference's packer.
uint8_t vector_code(int bits, int k, int n) { return static_cast<uint8_t>((5 * k + 3 * n + k * n / 7) % (1 << bits)); }

std::vector<uint32_t> pack_matrix(int bits, const Plane<uint8_t>& codes, std::vector<int32_t> order = {}) {
  std::vector<uint32_t> words(static_cast<size_t>(codes.size() * bits / 32));
  pack_columns(bits, codes, order, std::as_writable_bytes(std::span(words)));
  return words;
}

TEST(BitPacking, TestVectorOfTheSpecification) {
  const struct {
    int bits;
    std::vector<uint32_t> first_column, first_row;
  } cases[] = {{2, {0xE4E4E4E4, 0xE4E4E4E4, 0xE4E4E4E4, 0xE4E4E4E4}, {0xE4E4E4E4, 0x34E4D393, 0x4924D34E, 0x9E34D279}},
               {3, {0xA878CEA8, 0xCEA878CE, 0x78CEA878}, {0xA878CEA8, 0x8CE67543, 0xA8743A1E, 0xCCE662F1}},
               {4, {0x3E94FA50, 0xB61C72D8}, {0x3E94FA50, 0x71C72D83, 0xB50B50B6, 0xF94E93E9}},
               {8, {0x0F0A0500, 0x231E1914, 0x37322D28, 0x4B46413C}, {0x0F0A0500, 0x120D0803, 0x15100B06, 0x19130E09}}};
  for (const auto& c : cases) {
    Plane<uint8_t> codes(32, 64);
    for (int n = 0; n < 32; ++n)
      for (int k = 0; k < 64; ++k) codes(n, k) = vector_code(c.bits, k, n);
    const auto words = pack_matrix(c.bits, codes);
    for (size_t i = 0; i < c.first_column.size(); ++i) EXPECT_EQ(words[i * 32], c.first_column[i]) << c.bits;
    for (size_t i = 0; i < c.first_row.size(); ++i) EXPECT_EQ(words[i], c.first_row[i]) << c.bits;
  }
}

TEST(BitPacking, ZeroPointsOfTheTestVector) {
  const struct {
    int bits;
    std::vector<uint32_t> words;
  } cases[] = {{2, {0x24924924, 0x49249249}},
               {3, {0xD11AC688, 0x6B1A2358, 0x688D6344}},
               {4, {0x76543210, 0x0EDCBA98, 0x87654321, 0x10EDCBA9}},
               {8, {0x03020100, 0x07060504, 0x0B0A0908}}};
  for (const auto& c : cases) {
    std::vector<uint8_t> fields(32);
    for (int n = 0; n < 32; ++n) fields[static_cast<size_t>(n)] = static_cast<uint8_t>(n % ((1 << c.bits) - 1));
    std::vector<uint32_t> words(static_cast<size_t>(c.bits));
    pack_bits(c.bits, fields, words);
    for (size_t i = 0; i < c.words.size(); ++i) EXPECT_EQ(words[i], c.words[i]) << c.bits << " bits, word " << i;
  }
}

// Bit by bit, as the definition says.
TEST(BitPacking, EveryWidthFollowsTheDefinitionAndComesBack) {
  std::mt19937 random(1);
  for (int bits = 2; bits <= 8; ++bits)
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{32, 32}, {96, 64}, {32, 160}}) {
      Plane<uint8_t> codes(rows, cols);
      for (uint8_t& c : codes.values()) c = static_cast<uint8_t>(random() % (1u << bits));
      std::vector<int32_t> order(static_cast<size_t>(cols));
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      for (const auto& o : {std::vector<int32_t>{}, order}) {
        const auto words = pack_matrix(bits, codes, o);
        for (int64_t n = 0; n < rows; ++n)
          for (int64_t c = 0; c < cols; ++c) {
            const int64_t k = o.empty() ? c : o[static_cast<size_t>(c)];
            int code = 0;
            for (int64_t bit = 0; bit < bits; ++bit) {
              const int64_t at = k * bits + bit;
              code |= static_cast<int>(words[static_cast<size_t>(at / 32 * rows + n)] >> (at % 32) & 1) << bit;
            }
            ASSERT_EQ(code, codes(n, c)) << bits << " bits, row " << n << ", column " << c;
          }
        Plane<uint8_t> back(rows, cols);
        std::string unaligned(1, 'x');
        unaligned.append(reinterpret_cast<const char*>(words.data()), words.size() * 4);
        unpack_columns(bits, bytes_of(unaligned).subspan(1), o, back);
        EXPECT_TRUE(back == codes);
      }
    }
}

}  // namespace
}  // namespace pare::test
