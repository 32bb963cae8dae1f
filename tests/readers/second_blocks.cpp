#include "tests/readers/second_blocks.h"

#include <map>
#include <sstream>
#include <stdexcept>

#include "tests/readers/second_bytes.h"

namespace pare::test {
namespace {

int byte_at(const std::string& block, int i) { return static_cast<unsigned char>(block.at(static_cast<size_t>(i))); }
int signed_byte_at(const std::string& block, int i) { return static_cast<int8_t>(byte_at(block, i)); }
int word_at(const std::string& block, int i) { return byte_at(block, i) | byte_at(block, i + 1) << 8; }
float f16_at(const std::string& block, int i) { return f16_value(word_at(block, i)); }
float real(int i) { return static_cast<float>(i); }
// Weight e of 32 whose nibbles begin at `at`: the first sixteen are the low ones.
int nibble_at(const std::string& b, int at, int e) {
  const int byte = byte_at(b, at + e % 16);
  return e % 32 < 16 ? byte & 15 : byte >> 4;
}
// The two bits of weight e where 128 weights share 32 bytes.
int pair_at(const std::string& b, int at, int e) {
  return byte_at(b, at + 32 * (e / 128) + e % 32) >> 2 * (e % 128 / 32) & 3;
}
// Nibble of weight e where 64 weights share 32 bytes.
int half_at(const std::string& b, int at, int e) {
  const int byte = byte_at(b, at + 32 * (e / 64) + e % 32);
  return e / 32 % 2 == 0 ? byte & 15 : byte >> 4;
}

// The scale and the min of group g, 6 bits each, in the 12 bytes that begin at `at`.
struct ScaleMin {
  int scale, min;
};
ScaleMin scale_min(const std::string& block, int at, int g) {
  const auto s = [&](int j) { return byte_at(block, at + j); };
  if (g < 4) return {s(g) & 63, s(g + 4) & 63};
  return {(s(g + 4) & 15) | (s(g - 4) >> 6) << 4, s(g + 4) >> 4 | (s(g) >> 6) << 4};
}

constexpr int kNonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int kTwiceE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// ---- blocks of 32 to 128

// | d f16 | 16 bytes of nibbles |
float q4_0_value(const std::string& b, int e) { return f16_at(b, 0) * real(nibble_at(b, 2, e) - 8); }
// | d f16 | m f16 | 16 bytes of nibbles |
float q4_1_value(const std::string& b, int e) {
  const float product = f16_at(b, 0) * real(nibble_at(b, 4, e));
  return product + f16_at(b, 2);
}
// | d f16 | u32 of fifth bits | 16 bytes of nibbles |
float q5_0_value(const std::string& b, int e) {
  const int fifth = byte_at(b, 2 + e / 8) >> (e % 8) & 1;
  return f16_at(b, 0) * real(nibble_at(b, 6, e) + 16 * fifth - 16);
}
// | d f16 | m f16 | u32 of fifth bits | 16 bytes of nibbles |
float q5_1_value(const std::string& b, int e) {
  const int fifth = byte_at(b, 4 + e / 8) >> (e % 8) & 1;
  const float product = f16_at(b, 0) * real(nibble_at(b, 8, e) + 16 * fifth);
  return product + f16_at(b, 2);
}
// | d f16 | i8[32] |
float q8_0_value(const std::string& b, int e) { return f16_at(b, 0) * real(signed_byte_at(b, 2 + e)); }
// | d f16 | 16 bytes of nibbles |
float iq4_nl_value(const std::string& b, int e) { return f16_at(b, 0) * real(kNonlinear[nibble_at(b, 2, e)]); }
// | e u8 | 16 bytes of nibbles |
float mxfp4_value(const std::string& b, int e) {
  return std::ldexp(1.0f, byte_at(b, 0) - 128) * real(kTwiceE2M1[nibble_at(b, 1, e)]);
}
// | 4 unsigned e4m3 | 4 times 8 bytes of nibbles |
float nvfp4_value(const std::string& b, int e) {
  const int s = e / 16, j = e % 16, byte = byte_at(b, 4 + 8 * s + j % 8), nibble = j < 8 ? byte & 15 : byte >> 4;
  const int scale = byte_at(b, s), exponent = scale >> 3, mantissa = scale & 7;
  float value = std::ldexp(1 + real(mantissa) / 8, exponent - 7);
  if (exponent == 0) value = std::ldexp(real(mantissa), -9);
  if (scale == 0x7F) value = 0;
  return 0.5f * value * real(kTwiceE2M1[nibble]);
}
// | d f16 | 16 bytes of bits |
float q1_0_value(const std::string& b, int e) {
  const float d = f16_at(b, 0);
  return byte_at(b, 2 + e / 8) >> (e % 8) & 1 ? d : -d;
}
// | d f16 | 16 bytes of two bits |
float q2_0_value(const std::string& b, int e) {
  return real((byte_at(b, 2 + e / 4) >> 2 * (e % 4) & 3) - 1) * f16_at(b, 0);
}

// ---- super-blocks of 256

// | scales u8[16] | two bits, 64 bytes | d f16 | dmin f16 |
float q2_k_value(const std::string& b, int e) {
  const int s = byte_at(b, e / 16);
  const float scale = f16_at(b, 80) * real(s & 15), min = f16_at(b, 82) * real(s >> 4);
  const float product = scale * real(pair_at(b, 16, e));
  return product - min;
}
// | high bits, 32 bytes | two bits, 64 bytes | scales 12 bytes | d f16 |
float q3_k_value(const std::string& b, int e) {
  const int j = e / 16, low = byte_at(b, 96 + j % 8) >> (j < 8 ? 0 : 4) & 15;
  const int high = byte_at(b, 104 + j % 4) >> 2 * (j / 4) & 3, bit = byte_at(b, e % 32) >> (e / 32) & 1;
  const float scale = f16_at(b, 108) * real((low | high << 4) - 32);
  return scale * real(pair_at(b, 32, e) - (bit ? 0 : 4));
}
// | d f16 | dmin f16 | scales 12 bytes | nibbles 128 bytes |
float q4_k_value(const std::string& b, int e) {
  const ScaleMin s = scale_min(b, 4, e / 32);
  const float scale = f16_at(b, 0) * real(s.scale), min = f16_at(b, 2) * real(s.min);
  const float product = scale * real(half_at(b, 16, e));
  return product - min;
}
// | d f16 | dmin f16 | scales 12 bytes | fifth bits 32 bytes | nibbles 128 bytes |
float q5_k_value(const std::string& b, int e) {
  const ScaleMin s = scale_min(b, 4, e / 32);
  const float scale = f16_at(b, 0) * real(s.scale), min = f16_at(b, 2) * real(s.min);
  const int fifth = byte_at(b, 16 + e % 32) >> (e / 32) & 1;
  const float product = scale * real(half_at(b, 48, e) + 16 * fifth);
  return product - min;
}
// | low nibbles 128 bytes | high pairs 64 bytes | scales i8[16] | d f16 |
float q6_k_value(const std::string& b, int e) {
  const int n = e / 128, l = e % 32, t = e % 128 / 32;
  const int low_byte = byte_at(b, 64 * n + l + 32 * (t % 2)), low = t < 2 ? low_byte & 15 : low_byte >> 4;
  const int high = byte_at(b, 128 + 32 * n + l) >> (2 * t) & 3;
  const float scale = f16_at(b, 208) * real(signed_byte_at(b, 192 + e / 16));
  return scale * real((low | high << 4) - 32);
}
// | d f16 | high bits of scales u16 | low nibbles of scales 4 bytes | nibbles 128 bytes |
float iq4_xs_value(const std::string& b, int e) {
  const int g = e / 32, low = byte_at(b, 4 + g / 2) >> (g % 2 ? 4 : 0) & 15, high = word_at(b, 2) >> 2 * g & 3;
  const float scale = f16_at(b, 0) * real((low | high << 4) - 32);
  return scale * real(kNonlinear[nibble_at(b, 8 + 16 * g, e)]);
}
// Digits of base three, the highest of the fraction byte / 256 first | 48 bytes | 4 bytes | d f16 |
float tq1_0_value(const std::string& b, int e) {
  int at = 48 + (e - 240) % 4, n = (e - 240) / 4;
  if (e < 240) at = 32 + (e - 160) % 16, n = (e - 160) / 16;
  if (e < 160) at = e % 32, n = e / 32;
  int power = 1;
  while (n-- > 0) power *= 3;
  return f16_at(b, 52) * real((byte_at(b, at) * power % 256 * 3 >> 8) - 1);
}
// | two bits, 64 bytes | d f16 |
float tq2_0_value(const std::string& b, int e) { return f16_at(b, 64) * real(pair_at(b, 0, e) - 1); }

// ---- codebooks

// Name -> points, each the levels of its columns.
std::map<std::string, std::vector<std::vector<int>>>& codebooks() {
  static std::map<std::string, std::vector<std::vector<int>>> books;
  return books;
}
int in_book(const std::string& name, int point, int column) {
  const auto at = codebooks().find(name);
  if (at == codebooks().end()) throw std::runtime_error("codebook " + name + " has not been read");
  return at->second.at(static_cast<size_t>(point)).at(static_cast<size_t>(column));
}

uint32_t dword_at(const std::string& b, int i) {
  return static_cast<uint32_t>(word_at(b, i)) | static_cast<uint32_t>(word_at(b, i + 2)) << 16;
}
// Seven bits name eight signs: an even number of them is minus.
float even_sign(uint32_t seven, int j) {
  uint32_t ones = 0;
  for (int i = 0; i < 7; ++i) ones += seven >> i & 1;
  const uint32_t bit = j < 7 ? seven >> j & 1 : ones % 2;
  return bit ? -1.0f : 1.0f;
}
float sign_at(const std::string& b, int at, int e) { return byte_at(b, at + e / 8) >> e % 8 & 1 ? -1.0f : 1.0f; }

float iq2_xxs_value(const std::string& b, int e) {
  const int run = 2 + 8 * (e / 32), l = e % 32 / 8;
  const uint32_t a = dword_at(b, run + 4);
  const float scale = f16_at(b, 0) * (0.5f + static_cast<float>(a >> 28)) * 0.25f;
  return scale * real(in_book("iq2xxs_grid", byte_at(b, run + l), e % 8)) * even_sign(a >> 7 * l & 127, e % 8);
}
float iq2_xs_value(const std::string& b, int e) {
  const int v = word_at(b, 2 + 2 * (e / 8)), s = byte_at(b, 66 + e / 32) >> (e % 32 < 16 ? 0 : 4) & 15;
  const float scale = f16_at(b, 0) * (0.5f + real(s)) * 0.25f;
  return scale * real(in_book("iq2xs_grid", v & 511, e % 8)) * even_sign(static_cast<uint32_t>(v >> 9), e % 8);
}
float iq2_s_value(const std::string& b, int e) {
  const int g = e / 32, l = e % 32 / 8, high = byte_at(b, 66 + g) >> 2 * l & 3;
  const int s = byte_at(b, 74 + g) >> (l < 2 ? 0 : 4) & 15;
  const float scale = f16_at(b, 0) * (0.5f + real(s)) * 0.25f;
  return scale * real(in_book("iq2s_grid", byte_at(b, 2 + e / 8) + 256 * high, e % 8)) * sign_at(b, 34, e);
}
float iq3_xxs_value(const std::string& b, int e) {
  const uint32_t a = dword_at(b, 66 + 4 * (e / 32));
  const float scale = f16_at(b, 0) * (0.5f + static_cast<float>(a >> 28)) * 0.5f;
  return scale * real(in_book("iq3xxs_grid", byte_at(b, 2 + e / 4), e % 4)) *
         even_sign(a >> 7 * (e % 32 / 8) & 127, e % 8);
}
float iq3_s_value(const std::string& b, int e) {
  const int g = e / 32, ninth = byte_at(b, 66 + g) >> (e % 32 / 4) & 1,
            s = byte_at(b, 106 + g / 2) >> (g % 2 ? 4 : 0) & 15;
  const float scale = f16_at(b, 0) * real(1 + 2 * s);
  return scale * real(in_book("iq3s_grid", byte_at(b, 2 + e / 4) + 256 * ninth, e % 4)) * sign_at(b, 74, e);
}
float iq1_s_value(const std::string& b, int e) {
  const int h = word_at(b, 34 + 2 * (e / 32)), point = byte_at(b, 2 + e / 8) + 256 * (h >> 3 * (e % 32 / 8) & 7);
  const float scale = f16_at(b, 0) * real(2 * (h >> 12 & 7) + 1);
  return scale * (real(in_book("iq1s_grid", point, e % 8)) + (h >> 15 ? -0.125f : 0.125f));
}
float iq1_m_value(const std::string& b, int e) {
  const int g = e / 32, l = e % 32 / 8, n = byte_at(b, 32 + e / 16) >> (l % 2 ? 4 : 0) & 15;
  int d = 0;
  for (int i = 0; i < 4; ++i) d |= word_at(b, 48 + 2 * i) >> 12 << 4 * i;
  const int s = word_at(b, 48 + 2 * (g / 2)) >> (6 * (g % 2) + 3 * (l / 2)) & 7;
  const float scale = f16_value(d) * real(2 * s + 1), moved = n & 8 ? -0.125f : 0.125f;
  return scale * (real(in_book("iq1s_grid", byte_at(b, e / 8) + 256 * (n & 7), e % 8)) + moved);
}

}  // namespace

// "<name> <entries> <components> <bits> values=<levels>", then hexadecimal words: indices of levels, first lowest.
void read_codebooks(const std::string& path) {
  std::istringstream in(whole_file(path));
  std::string line, name;
  std::vector<int> levels;
  int components = 0, bits = 0;
  while (std::getline(in, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    if (const auto at = line.find("values="); at != std::string::npos) {
      int entries = 0;
      words >> name >> entries >> components >> bits;
      levels.clear();
      std::istringstream list(line.substr(at + 7));
      for (std::string level; std::getline(list, level, ',');) levels.push_back(std::stoi(level));
      codebooks()[name].clear();
      continue;
    }
    for (std::string hex; words >> hex;) {
      const int word = std::stoi(hex, nullptr, 16);
      std::vector<int> point;
      for (int j = 0; j < components; ++j)
        point.push_back(levels.at(static_cast<size_t>(word >> bits * j & ((1 << bits) - 1))));
      codebooks()[name].push_back(point);
    }
  }
}

float block_value(const std::string& type, const std::string& block, int e) {
  static const std::map<std::string, float (*)(const std::string&, int)> kValues = {
      {"q4_0", q4_0_value},   {"q4_1", q4_1_value},       {"q5_0", q5_0_value},       {"q5_1", q5_1_value},
      {"q8_0", q8_0_value},   {"iq4_nl", iq4_nl_value},   {"mxfp4", mxfp4_value},     {"nvfp4", nvfp4_value},
      {"q1_0", q1_0_value},   {"q2_0", q2_0_value},       {"q2_k", q2_k_value},       {"q3_k", q3_k_value},
      {"q4_k", q4_k_value},   {"q5_k", q5_k_value},       {"q6_k", q6_k_value},       {"iq4_xs", iq4_xs_value},
      {"iq1_s", iq1_s_value}, {"iq1_m", iq1_m_value},     {"iq2_xxs", iq2_xxs_value}, {"iq2_xs", iq2_xs_value},
      {"iq2_s", iq2_s_value}, {"iq3_xxs", iq3_xxs_value}, {"iq3_s", iq3_s_value},     {"tq1_0", tq1_0_value},
      {"tq2_0", tq2_0_value}};
  const auto at = kValues.find(type);
  if (at == kValues.end()) throw std::runtime_error("no values for type " + type);
  return at->second(block, e);
}

}  // namespace pare::test
