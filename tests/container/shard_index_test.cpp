#include "pare/container/shard_index.h"

#include "tests/container/files.h"

namespace pare::test {
namespace {

using ::testing::HasSubstr;

class Index : public ::testing::Test {
 protected:
  ShardIndex read(const std::string& text) {
    write_bytes(directory_ / "i.json", text);
    return read_shard_index(directory_ / "i.json");
  }
  std::string refusal(const std::string& text) {
    return error_of([&] { read(text); });
  }
  TemporaryDirectory directory_;
};

TEST_F(Index, RoundTrips) {
  const ShardIndex written{{{"a", "model-00001-of-00002.safetensors"}, {"b", "model-00002-of-00002.safetensors"}}};
  const std::string text = shard_index_json(written, 123);
  EXPECT_THAT(text, HasSubstr("\"total_size\": 123"));
  const ShardIndex index = read(text);
  EXPECT_EQ(index.weight_map, written.weight_map);
  EXPECT_EQ(index.files().size(), 2u);
}

TEST_F(Index, RefusesNamesThatLeadElsewhere) {
  for (const char* name : {"../x", "/etc/passwd", "a/b", "a\\\\b", "", ".", "..", ".hidden", "a\\u0000b"})
    EXPECT_THAT(refusal(R"({"weight_map":{"t":")" + std::string(name) + "\"}}"), HasSubstr("plain file name")) << name;
}

TEST_F(Index, RefusesWhatIsNoIndex) {
  EXPECT_THAT(refusal("{"), HasSubstr("JSON"));
  EXPECT_THAT(refusal("{}"), HasSubstr("no weight_map"));
  EXPECT_THAT(refusal("[]"), HasSubstr("something else"));
  EXPECT_THAT(refusal(R"({"weight_map":[]})"), HasSubstr("something else"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":1}})"), HasSubstr("something else"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":{"b":"c"}}})"), HasSubstr("something else"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"x","a":"y"}})"), HasSubstr("twice"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"x"},"weight_map":{"b":"y"}})"), HasSubstr("two weight_maps"));
  EXPECT_THAT(refusal(R"({"metadata":)" + std::string(1000, '[') + std::string(1000, ']') + "}"), HasSubstr("deeply"));
}

}  // namespace
}  // namespace pare::test
