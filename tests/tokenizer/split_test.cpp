// The hand-written splitters against PCRE2 running the patterns they stand for.
#include <gtest/gtest.h>

#include <random>

#include "pare/base/utf8.h"
#include "pare/tokenizer/regex.h"
#include "pare/tokenizer/split_classic.h"
#include "pare/tokenizer/unicode.h"

namespace pare::tok {
namespace {

constexpr Classic kPatterns[] = {Classic::gpt2, Classic::llama3, Classic::qwen2};

std::vector<std::string> by_hand(Classic pattern, const std::string& text) {
  std::vector<std::string_view> pieces;
  split_classic(pattern, text, pieces);
  return {pieces.begin(), pieces.end()};
}

std::vector<std::string> by_regex(const Regex& regex, const std::string& text) {
  std::vector<std::string> pieces;
  size_t done = 0;
  regex.for_each_match(text, [&](size_t begin, size_t end) {
    EXPECT_EQ(begin, done) << "the classic patterns leave no gaps";
    pieces.push_back(text.substr(begin, end - begin));
    done = end;
  });
  EXPECT_EQ(done, text.size());
  return pieces;
}

// Known to both libraries: their tables are of different Unicode versions.
bool assigned(uint32_t c) {
  static const Regex unassigned("\\p{Cn}");
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  if (category == UTF8PROC_CATEGORY_CN || category == UTF8PROC_CATEGORY_CS) return false;
  bool known = true;
  std::string text;
  append_utf8(text, c);
  unassigned.for_each_match(text, [&](size_t, size_t) { known = false; });
  return known;
}

// Characters chosen so that the alternatives meet: apostrophes, contractions, line ends, many kinds of space, marks.
std::string random_text(std::mt19937& random, size_t characters) {
  static const std::vector<std::string> common = {
      "'",      "'",          "s", "S",  "t",      "re",     "VE",     "ll",     "d",          "m",      "\u017f",
      " ",      " ",          " ", "\n", "\r",     "\t",     "\v",     "\u00a0", "\u0085",     "\u3000", "\u2028",
      "\u180e", "\u200b",     "1", "23", "\u0664", "\u00bd", "\u2167", "a",      "Z",          "\u00e9", "e\u0301",
      "\u4e2d", "\U0001f600", "!", ".",  "_",      "$",      "\u2019", "\u0300", "\U00010400", "\u1e9e"};
  std::string text;
  while (characters-- > 0) {
    if (random() % 4) {
      text += common[random() % common.size()];
      continue;
    }
    uint32_t c = 0;
    do c = random() % 0x30000;
    while (!assigned(c));
    append_utf8(text, c);
  }
  return text;
}

TEST(ClassicSplit, EqualsItsRegexOnRandomText) {
  std::mt19937 random(7);
  for (const Classic pattern : kPatterns) {
    const Regex regex(classic_regex(pattern));
    for (int round = 0; round < 3000; ++round) {
      const std::string text = random_text(random, 1 + random() % 40);
      ASSERT_EQ(by_hand(pattern, text), by_regex(regex, text)) << text;
    }
  }
}

TEST(ClassicSplit, EqualsItsRegexOnEveryPairOfUsualCharacters) {
  const std::string usual = "a1 \n\r\t'sS.\xc2\xa0";
  for (const Classic pattern : kPatterns) {
    const Regex regex(classic_regex(pattern));
    for (const char a : std::string("a1 \n\r\t'sS."))
      for (const char b : std::string("a1 \n\r\t'sS."))
        for (const char c : std::string("a1 \n\r\t'sSl."))
          for (const char d : std::string("a1 \nl.")) {
            const std::string text{a, b, c, d};
            ASSERT_EQ(by_hand(pattern, text), by_regex(regex, text)) << text;
          }
  }
}

// Both libraries classify every assigned character alike (utf8proc and PCRE2 may know different Unicode versions:
// characters that are new in one of them are left out).
TEST(ClassicSplit, ClassesAreThoseOfTheRegexEngine) {
  const Regex letter("\\p{L}"), number("\\p{N}"), space("\\s"), unassigned("\\p{Cn}");
  const auto matches = [](const Regex& regex, const std::string& text) {
    bool any = false;
    regex.for_each_match(text, [&](size_t, size_t) { any = true; });
    return any;
  };
  for (uint32_t c = 1; c < 0x30000; c += c < 0x3000 ? 1 : 7) {
    if (!assigned(c)) continue;
    std::string text;
    append_utf8(text, c);
    if (matches(unassigned, text)) continue;
    const Class expected = matches(letter, text)   ? Class::letter
                           : matches(number, text) ? Class::number
                           : matches(space, text)  ? Class::space
                                                   : Class::other;
    ASSERT_EQ(class_of(c), expected) << std::hex << c;
  }
}

TEST(ClassicSplit, RecognizesPublishedSpellings) {
  for (const Classic pattern : kPatterns) EXPECT_EQ(classic_from_regex(classic_regex(pattern)), pattern);
  EXPECT_EQ(classic_from_regex("a+"), std::nullopt);
}

TEST(Unicode, RepairsBrokenTextAsTheStandardAdvises) {
  EXPECT_EQ(repair_utf8("a\xe2\x82z"), "a\ufffdz");  // one for the longest possible beginning
  EXPECT_EQ(repair_utf8("\xf0\x9f\x98"), "\ufffd");
  EXPECT_EQ(repair_utf8("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");  // surrogates begin nothing
  EXPECT_EQ(repair_utf8("\xc0\xaf\xff"), "\ufffd\ufffd\ufffd");
  EXPECT_EQ(repair_utf8("\xe2\x82\xac"), "\u20ac");
}

TEST(Unicode, ByteLettersAreReversible) {
  for (unsigned b = 0; b < 256; ++b)
    EXPECT_EQ(letter_to_byte(byte_to_letter(static_cast<uint8_t>(b))), static_cast<int>(b));
  EXPECT_EQ(byte_to_letter(' '), 0x120u);
  EXPECT_EQ(byte_to_letter('\n'), 0x10au);
  EXPECT_EQ(byte_to_letter(0xad), 0x143u);
  EXPECT_EQ(letter_to_byte(' '), -1);
}

}  // namespace
}  // namespace pare::tok
