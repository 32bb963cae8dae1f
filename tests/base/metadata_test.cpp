#include "pare/base/metadata.h"

#include <gtest/gtest.h>

#include "pare/base/error.h"

namespace pare {
namespace {

TEST(Metadata, KeepsTheOrderAndReplacesInPlace) {
  Metadata metadata;
  EXPECT_TRUE(metadata.empty());
  metadata.set("b", uint32_t{1});
  metadata.set("a", std::string("x"));
  metadata.set("b", int64_t{2});
  ASSERT_EQ(metadata.entries().size(), 2u);
  EXPECT_EQ(metadata.entries()[0].first, "b");
  EXPECT_EQ(metadata.integer("b"), 2);
  EXPECT_EQ(metadata.find("c"), nullptr);
}

TEST(Metadata, IntegersOfEveryWidth) {
  Metadata metadata;
  metadata.set("u8", uint8_t{255});
  metadata.set("i8", int8_t{-128});
  metadata.set("u16", uint16_t{65535});
  metadata.set("i16", int16_t{-1});
  metadata.set("u32", UINT32_MAX);
  metadata.set("i32", INT32_MIN);
  metadata.set("u64", uint64_t{INT64_MAX});
  metadata.set("i64", INT64_MIN);
  metadata.set("too large", uint64_t{INT64_MAX} + 1);
  EXPECT_EQ(metadata.integer("u8"), 255);
  EXPECT_EQ(metadata.integer("i8"), -128);
  EXPECT_EQ(metadata.integer("u16"), 65535);
  EXPECT_EQ(metadata.integer("i16"), -1);
  EXPECT_EQ(metadata.integer("u32"), int64_t{UINT32_MAX});
  EXPECT_EQ(metadata.integer("i32"), INT32_MIN);
  EXPECT_EQ(metadata.integer("u64"), INT64_MAX);
  EXPECT_EQ(metadata.integer("i64"), INT64_MIN);
  EXPECT_THROW(metadata.integer("too large"), Error);
  EXPECT_EQ(metadata.integer("absent"), std::nullopt);
}

TEST(Metadata, RefusesAValueOfAnotherKind) {
  Metadata metadata;
  metadata.set("text", std::string("7"));
  metadata.set("float", 0.5f);
  metadata.set("bool", true);
  metadata.set("list", std::vector<float>{1, 2});
  EXPECT_THROW(metadata.integer("text"), Error);
  EXPECT_THROW(metadata.integer("float"), Error);
  EXPECT_THROW(metadata.integer("bool"), Error);
  EXPECT_THROW(metadata.integer("list"), Error);
  EXPECT_THROW(metadata.text("float"), Error);
  EXPECT_THROW(metadata.boolean("text"), Error);
  EXPECT_THROW(metadata.number("text"), Error);
  EXPECT_EQ(metadata.number("float"), 0.5);
  EXPECT_EQ(metadata.boolean("bool"), true);
  EXPECT_EQ(metadata.text("text"), "7");
  EXPECT_EQ(metadata.array<int32_t>("list"), nullptr);
  ASSERT_NE(metadata.array<float>("list"), nullptr);
  EXPECT_EQ(metadata.array<float>("list")->size(), 2u);
}

}  // namespace
}  // namespace pare
