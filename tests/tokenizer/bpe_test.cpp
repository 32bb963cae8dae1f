#include "pare/tokenizer/bpe.h"

#include <gmock/gmock.h>

#include <chrono>
#include <map>
#include <random>

#include "pare/base/error.h"
#include "tests/tokenizer/small_tokenizers.h"

namespace pare {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using namespace tok;

std::vector<int32_t> encode(const Json& model, const std::string& text) {
  return test::load(test::tokenizer_json(model))->encode(text);
}

TEST(Bpe, JoinsTheBestRankedPairFirstThenTheLeftmost) {
  EXPECT_THAT(encode(test::letters_model(), "abcd"), ElementsAre(5, 7));  // "c d" outranks "ab c"
  EXPECT_THAT(encode(test::letters_model(), "abc"), ElementsAre(6));
  EXPECT_THAT(encode(test::letters_model(), "bab"), ElementsAre(2, 5));
  EXPECT_THAT(encode(test::letters_model(), ""), IsEmpty());
}

TEST(Bpe, TakesAWholePieceThatIsATokenWhenMergesAreIgnored) {
  Json model = test::letters_model({{"ignore_merges", true}});
  model["vocab"]["dcb"] = 9;
  EXPECT_THAT(encode(model, "dcb"), ElementsAre(9));
  EXPECT_THAT(encode(model, "dcba"), ElementsAre(4, 3, 2, 1));
  model["ignore_merges"] = false;
  EXPECT_THAT(encode(model, "dcb"), ElementsAre(4, 3, 2));
}

TEST(Bpe, DropsKeepsOrFusesUnknownCharacters) {
  EXPECT_THAT(encode(test::letters_model(), "axyb"), ElementsAre(5));  // dropped: a and b become neighbours and merge
  EXPECT_THAT(encode(test::letters_model({{"unk_token", "<unk>"}}), "axyb"), ElementsAre(1, 0, 0, 2));
  EXPECT_THAT(encode(test::letters_model({{"unk_token", "<unk>"}, {"fuse_unk", true}}), "axyb"), ElementsAre(1, 0, 2));
}

TEST(Bpe, FallsBackToBytesOnlyWhenAllAreThere) {
  Json model = test::letters_model({{"unk_token", "<unk>"}, {"byte_fallback", true}});
  model["vocab"]["<0xC3>"] = 9;
  EXPECT_THAT(encode(model, "a\u00e4"), ElementsAre(1, 0));  // ä = C3 A4
  model["vocab"]["<0xA4>"] = 10;
  EXPECT_THAT(encode(model, "a\u00e4"), ElementsAre(1, 9, 10));
}

TEST(Bpe, ReadsMergesAsStringsAndAsPairs) {
  Json model = test::letters_model();
  model["merges"] = Json::array({Json::array({"a", "b"}), Json::array({"c", "d"}), Json::array({"ab", "c"})});
  EXPECT_EQ(encode(model, "abcdabc"), encode(test::letters_model(), "abcdabc"));
}

TEST(Bpe, RefusesMergesOfUnknownPieces) {
  for (const char* merge : {"a x", "x a", "b a", "a", "a b c", ""})
    EXPECT_THROW(encode(test::letters_model({{"merges", {merge}}}), "a"), Error) << merge;
}

// Ranks by score, in the plainest way: join the best neighbouring pair until none is left.
std::vector<std::string> join_by_score(std::vector<std::string> parts, const std::map<std::string, float>& scores) {
  while (true) {
    size_t best = parts.size();
    float best_score = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto at = scores.find(parts[i] + parts[i + 1]);
      if (at != scores.end() && (best == parts.size() || at->second > best_score)) best = i, best_score = at->second;
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, ByScoresEqualsThePlainestWayOnRandomVocabularies) {
  std::mt19937 random(1);
  const auto letters = [&](size_t n) {
    std::string s;
    while (n--) s += static_cast<char>('a' + random() % 3);
    return s;
  };
  for (int round = 0; round < 200; ++round) {
    std::map<std::string, float> scores{{"a", 0}, {"b", 0}, {"c", 0}};
    for (int i = 0; i < 40; ++i) scores[letters(2 + random() % 5)] = -static_cast<float>(random() % 12);  // with ties
    auto vocabulary = std::make_shared<Vocabulary>();
    std::vector<float> by_id;
    for (const auto& [piece, score] : scores) {
      vocabulary->set(static_cast<int32_t>(by_id.size()), piece, Kind::normal, "test");
      by_id.push_back(score);
    }
    vocabulary->finish();
    const Bpe bpe = Bpe::from_scores(vocabulary, by_id, {});
    const std::string text = letters(1 + random() % 120);
    std::vector<std::string> characters;
    for (const char c : text) characters.emplace_back(1, c);
    Bpe::Scratch scratch;
    std::vector<int32_t> ids;
    bpe.encode(text, scratch, ids);
    std::vector<std::string> pieces;
    for (const int32_t id : ids) pieces.push_back(vocabulary->piece(id));
    EXPECT_EQ(pieces, join_by_score(characters, scores)) << text;
  }
}

// Cutting long pieces where nothing joins, the cache, the two merging loops: none of them may show.
TEST(Bpe, LongTextEqualsItsWordsAndItself) {
  std::mt19937 random(2);
  const auto tokenizer = test::load(test::tokenizer_json(
      test::letters_model({{"unk_token", "<unk>"}, {"fuse_unk", true}}),
      {{"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}));
  for (int round = 0; round < 100; ++round) {
    std::string text;
    while (text.size() < 300) text += "abcd xy"[random() % 7];
    std::vector<int32_t> joined;
    for (size_t at = 0; at < text.size();) {
      size_t end = text.find(' ', at + 1);
      if (end == std::string::npos) end = text.size();
      const auto word = tokenizer->encode(text.substr(at, end - at));
      joined.insert(joined.end(), word.begin(), word.end());
      at = end;
    }
    EXPECT_EQ(tokenizer->encode(text), joined) << text;
    EXPECT_EQ(tokenizer->encode(text), joined) << "again, from the cache";
  }
}

double seconds_for(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(tokenizer.encode(text).empty());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A quadratic algorithm would need minutes for these.
TEST(Bpe, FourMegabytesInOneWordTakeTheirTimeAndNoMore) {
  const auto demo = Tokenizer::from_directory(test::demo_model());
  const size_t size = size_t{4} << 20;
  std::string random_word(size, 'x');
  std::mt19937 random(3);
  for (char& c : random_word) c = static_cast<char>('a' + random() % 26);
  for (const std::string& text : {random_word, std::string(size, 'a'), std::string(size, ' ') + "x",
                                  std::string(size, '\n') + std::string(size / 4, ' '), std::string(size, '!')})
    EXPECT_LT(seconds_for(*demo, text), 60.0);
  EXPECT_EQ(demo->decode(demo->encode(random_word, {.add_special = false})), random_word);
}

}  // namespace
}  // namespace pare
