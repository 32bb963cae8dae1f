#include <fmt/format.h>
#include <gmock/gmock.h>

#include <random>

#include "pare/base/mapped_file.h"
#include "pare/base/utf8.h"
#include "tests/tokenizer/small_tokenizers.h"

namespace pare {
namespace {

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  return test::load(test::tokenizer_json(
      test::byte_model(),
      {{"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}}, {"decoder", {{"type", "ByteLevel"}}}}));
}

// Words with ▁ and byte tokens, decoded as Llama 2 does.
std::shared_ptr<const Tokenizer> spm_tokenizer() {
  Json vocab = {{"<unk>", 0}, {"\u2581a", 1}, {"b", 2}, {"\u2581", 3}, {"\u2581\u2581", 4}};
  for (int b = 0; b < 256; ++b) vocab[fmt::format("<0x{:02X}>", b)] = 5 + b;
  return test::load(
      test::tokenizer_json({{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}, {"byte_fallback", true}},
                           Json::parse(R"({"decoder":{"type":"Sequence","decoders":[
        {"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
        {"type":"Strip","content":" ","start":1,"stop":0}]}})")));
}

// Whatever the ids, the parts are whole characters and together the decoded whole.
void expect_streams_whole(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<int32_t>& prompt,
                          const std::vector<int32_t>& ids) {
  StreamDecoder stream(tokenizer, prompt);
  std::string text = tokenizer->decode(prompt);
  std::vector<int32_t> all = prompt;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    EXPECT_TRUE(is_utf8(part));
    text += part;
    all.push_back(id);
  }
  text += stream.finish();
  EXPECT_EQ(text, tokenizer->decode(all));
}

TEST(StreamDecoder, HoldsACharacterBackUntilItIsWhole) {
  StreamDecoder stream(byte_tokenizer());
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xe2), "");
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.push(0xac), "\u20ac");
  EXPECT_EQ(stream.push(0xf0), "");
  EXPECT_EQ(stream.push('b'), "\ufffdb");
  EXPECT_EQ(stream.push(0xc3), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, KeepsTheSpaceThatOnlyTheFirstTokenLoses) {
  StreamDecoder stream(spm_tokenizer());
  EXPECT_EQ(stream.push(1), "a");
  EXPECT_EQ(stream.push(1), " a");
  const std::vector<int32_t> prompt{1};
  StreamDecoder after_prompt(spm_tokenizer(), prompt);
  EXPECT_EQ(after_prompt.push(1), " a");
}

TEST(StreamDecoder, FinishesACharacterThatThePromptBegan) {
  const std::vector<int32_t> prompt{'a', 0xe2, 0x82};
  StreamDecoder stream(byte_tokenizer(), prompt);
  EXPECT_EQ(stream.push(0xac), "\u20ac");
}

TEST(StreamDecoder, OfRandomIdsEqualsTheWhole) {
  std::mt19937 random(5);
  const auto bytes = byte_tokenizer(), words = spm_tokenizer();
  const auto demo = Tokenizer::from_directory(test::demo_model());
  for (int round = 0; round < 2000; ++round) {
    for (const auto& tokenizer : {bytes, words, demo}) {
      std::vector<int32_t> ids;
      const auto some = static_cast<uint32_t>(tokenizer->vocabulary_size());
      while (ids.size() < 12)
        ids.push_back(static_cast<int32_t>(random() % (random() % 2 ? some : std::min(some, 5u))));
      expect_streams_whole(tokenizer, {}, ids);
    }
  }
}

TEST(StreamDecoder, OfRealTextEqualsTheWhole) {
  const auto demo = Tokenizer::from_directory(test::demo_model());
  const std::string text =
      read_text_file(test::demo_model() / "eval.txt").substr(0, 20000) +
      "Gr\u00fc\u00dfe \u4f60\u597d \U0001f469\u200d\U0001f680 \u0939\u093f\u0928\u094d\u0926\u0940";
  const auto ids = demo->encode(text);
  expect_streams_whole(demo, {}, ids);
  expect_streams_whole(demo, {ids.begin(), ids.begin() + 100}, {ids.begin() + 100, ids.end()});
}

TEST(DemoTokenizer, ReturnsAnyTextUnchanged) {
  const auto demo = Tokenizer::from_directory(test::demo_model());
  EXPECT_EQ(demo->vocabulary_size(), 4096);
  EXPECT_EQ(demo->bos(), 4094);
  EXPECT_THAT(demo->eos(), testing::ElementsAre(4095));
  EXPECT_TRUE(demo->adds_bos());
  EXPECT_EQ(demo->token(4094).kind, TokenInfo::Kind::control);
  EXPECT_EQ(demo->id_of("<|end_of_text|>"), 4095);
  const std::string text = read_text_file(test::demo_model() / "eval.txt") + "\r\n\t \u00e9\u4e2d\U0001f600'S 12345";
  EXPECT_EQ(demo->decode(demo->encode(text, {.add_special = false})), text);
  EXPECT_EQ(demo->encode("").size(), 1u);
  EXPECT_EQ(demo->decode(demo->encode("a<|end_of_text|>b"), {.skip_special = true}), "ab");
  EXPECT_GT(demo->encode("<|end_of_text|>", {.parse_special = false}).size(), 2u);
}

}  // namespace
}  // namespace pare
