#include "pare/base/utf8.h"

#include <gtest/gtest.h>

#include <set>

namespace pare {
namespace {

bool is_surrogate(uint32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

// Well-formed is what some code point encodes to; the encoder is compared with the definition first.
TEST(Utf8, EncodesEveryCodePointByDefinition) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    std::string out;
    append_utf8(out, c);
    const size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    ASSERT_EQ(out.size(), length) << c;
    const auto lead = static_cast<unsigned char>(out[0]);
    uint32_t back = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t i = 1; i < length; ++i) back = back << 6 | (static_cast<unsigned char>(out[i]) & 63u);
    ASSERT_EQ(back, c);
    ASSERT_EQ(utf8_length(lead), static_cast<int>(length)) << c;
    ASSERT_EQ(is_utf8(out), !is_surrogate(c)) << c;
  }
}

// All byte strings of one, two and three bytes that start with the lead of their length.
TEST(Utf8, AcceptsNothingElse) {
  std::set<std::string> good;
  for (uint32_t c = 0; c < 0x10000; ++c) {
    std::string out;
    append_utf8(out, c);
    if (!is_surrogate(c)) good.insert(out);
  }
  for (int a = 0; a < 256; ++a) {
    const std::string one(1, static_cast<char>(a));
    ASSERT_EQ(is_utf8(one), good.contains(one)) << a;
    if (a < 0x80) continue;
    for (int b = 0; b < 256; ++b) {
      const std::string two = one + static_cast<char>(b);
      ASSERT_EQ(is_utf8(two), good.contains(two)) << a << " " << b;
    }
  }
  for (int a = 0xE0; a < 0xF0; ++a)
    for (int b = 0x70; b < 0xD0; ++b)
      for (const int c : {0x00, 0x7F, 0x80, 0x81, 0xBE, 0xBF, 0xC0, 0xFF}) {
        const std::string three{static_cast<char>(a), static_cast<char>(b), static_cast<char>(c)};
        ASSERT_EQ(is_utf8(three), good.contains(three)) << a << " " << b << " " << c;
      }
}

TEST(Utf8, FourBytesStopAtTheLastCodePoint) {
  EXPECT_TRUE(is_utf8("\xF4\x8F\xBF\xBF"));
  EXPECT_FALSE(is_utf8("\xF4\x90\x80\x80"));
  EXPECT_FALSE(is_utf8("\xF5\x80\x80\x80"));
  EXPECT_FALSE(is_utf8("\xF0\x8F\xBF\xBF"));  // overlong
  EXPECT_TRUE(is_utf8("\xF0\x90\x80\x80"));
}

TEST(Utf8, NamesTheFirstBadByte) {
  EXPECT_EQ(first_invalid_utf8("aé中😀"), std::string("aé中😀").size());
  EXPECT_EQ(first_invalid_utf8("ab\xFFg"), 2u);
  EXPECT_EQ(first_invalid_utf8("ab\xE4\xB8"), 2u);  // cut off: the sequence begins there
  EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0u);
  EXPECT_EQ(first_invalid_utf8(""), 0u);
}

}  // namespace
}  // namespace pare
