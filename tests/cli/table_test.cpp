#include "pare/report/table.h"

#include <gmock/gmock.h>

#include "pare/report/units.h"

namespace pare {
namespace {

TEST(Table, AlignsByWhatATerminalShows) {
  const Table table{.columns = {{"name"}, {"size", Align::right}},
                    .rows = {{"ä", "1"}, {"日本", "22"}, {"abc", "333"}}};
  EXPECT_EQ(to_text(table),
            "name  size\n"
            "ä        1\n"
            "日本    22\n"
            "abc    333\n");
}

TEST(Table, WithoutTitlesHasNoTitleLine) {
  EXPECT_EQ(to_text({.columns = {{""}, {""}}, .rows = {{"a", ""}, {"bc", "d"}}}), "a\nbc  d\n");
}

TEST(Table, AsMarkdown) {
  const Table table{.columns = {{"a"}, {"b", Align::right}}, .rows = {{"x|y", "1\n2"}}};
  EXPECT_EQ(to_markdown(table), "| a | b |\n|---|---:|\n| x\\|y | 1 2 |\n");
}

TEST(DisplayWidth, CountsCellsNotBytes) {
  EXPECT_EQ(display_width(""), 0);
  EXPECT_EQ(display_width("naïve"), 5);
  EXPECT_EQ(display_width("e\u0301"), 1);  // a combining accent
  EXPECT_EQ(display_width("量化"), 4);
  EXPECT_EQ(display_width("a\xff"), 2);  // not UTF-8: still terminates
}

TEST(Shortened, NeverExceedsTheWidth) {
  EXPECT_EQ(shortened("abc", 3), "abc");
  EXPECT_EQ(shortened("abcd", 3), "ab…");
  EXPECT_EQ(shortened("量化了", 5), "量化…");
  EXPECT_EQ(shortened("abc", 0), "");
  for (int64_t width = 0; width < 10; ++width) EXPECT_LE(display_width(shortened("a量b化c了", width)), width);
}

TEST(Wrapped, BreaksAtSpaces) {
  EXPECT_THAT(wrapped("one two three", 7), testing::ElementsAre("one two", "three"));
  EXPECT_THAT(wrapped("overlong x", 4), testing::ElementsAre("overlong", "x"));
  EXPECT_THAT(wrapped("", 10), testing::ElementsAre(""));
}

TEST(Units, ThreeDigits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.00 kB");
  EXPECT_EQ(human_bytes(11547040), "11.5 MB");
  EXPECT_EQ(human_bytes(999999), "1.00 MB");
  EXPECT_EQ(human_bytes(123456789012), "123 GB");
  EXPECT_EQ(human_count(656000), "656 K");
  EXPECT_EQ(human_seconds(0.346), "0.35 s");
  EXPECT_EQ(human_seconds(59.6), "1:00");
  EXPECT_EQ(human_seconds(3753), "1:02:33");
  EXPECT_EQ(human_seconds(-1), "?");
}

}  // namespace
}  // namespace pare
