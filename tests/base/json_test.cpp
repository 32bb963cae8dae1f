#include "pare/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pare/base/error.h"
#include "pare/base/output.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::string& text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "config.json", limits);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_input);
    EXPECT_THAT(error.info().where, HasSubstr("config.json"));
    return error.what();
  }
  return "accepted";
}

TEST(Json, KeepsValuesAndTheOrderOfKeys) {
  const Json json = parse_json(R"({"b": 18446744073709551615, "a": [1.5, null, true, "é"]})", "x");
  EXPECT_EQ(json.begin().key(), "b");
  EXPECT_EQ(json["b"].get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(json["a"][0].get<double>(), 1.5);
  EXPECT_EQ(json["a"][3].get<std::string>(), "é");
}

TEST(Json, NamesTheByteOfAFault) {
  EXPECT_THAT(refusal(R"({"a": 1, "b": })"), HasSubstr("at byte 15"));
  for (const char* bad : {"", "{", "[1,", "{\"a\":1} x", "nul", "\"\x80\"", "\"\\ud800\"", "1e999", "'a'", "[1,]"})
    EXPECT_THAT(refusal(bad), HasSubstr("not valid JSON")) << bad;
}

TEST(Json, LimitsDepth) {
  const auto nested = [](int levels) {
    return std::string(static_cast<size_t>(levels), '[') + std::string(static_cast<size_t>(levels), ']');
  };
  EXPECT_EQ(refusal(nested(64)), "accepted");
  EXPECT_THAT(refusal(nested(65)), HasSubstr("nested too deeply"));
  EXPECT_THAT(refusal(nested(1000000)), HasSubstr("nested too deeply"));  // before any tree is built
  EXPECT_THAT(refusal(R"({"a":{"b":{}}})", {.depth = 2}), HasSubstr("nested too deeply"));
  EXPECT_EQ(refusal("[[],[],[],[]]", {.depth = 2}), "accepted");  // siblings are not depth
}

TEST(Json, LimitsSize) {
  EXPECT_EQ(refusal("[1,2]", {.bytes = 5}), "accepted");
  EXPECT_THAT(refusal("[1,2]", {.bytes = 4}), HasSubstr("too large"));
}

TEST(Json, RefusesARepeatedKeyWhereAsked) {
  const std::string text = R"({"a": {"x": 1, "y": 2}, "b": {"x": 3}, "a": 4})";
  EXPECT_EQ(refusal(text), "accepted");
  EXPECT_THAT(refusal(text, {.unique_keys = true}), HasSubstr("\"a\" twice"));
  EXPECT_THAT(refusal(R"([{"k": {"q": 1, "q": 1}}])", {.unique_keys = true}), HasSubstr("\"q\" twice"));
  EXPECT_EQ(refusal(R"({"a": {"x": 1}, "b": {"x": 1}, "x": 1})", {.unique_keys = true}), "accepted");
}

TEST(Json, ReadsAFile) {
  const test::TemporaryDirectory directory;
  write_file(directory / "a.json", "{\"a\": 7}");
  EXPECT_EQ(read_json_file((directory / "a.json").string())["a"], 7);
  EXPECT_THROW(read_json_file((directory / "a.json").string(), {.bytes = 3}), Error);
  EXPECT_THROW(read_json_file((directory / "missing.json").string()), Error);
}

}  // namespace
}  // namespace pare
