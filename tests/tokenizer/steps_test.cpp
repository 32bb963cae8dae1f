// Normalizers, pre-tokenizers, added tokens, templates and decoders, each by hand-made cases.
#include <gmock/gmock.h>

#include "pare/base/error.h"
#include "pare/tokenizer/added_tokens.h"
#include "pare/tokenizer/decoder.h"
#include "pare/tokenizer/normalizer.h"
#include "pare/tokenizer/pretokenizer.h"
#include "tests/tokenizer/small_tokenizers.h"

namespace pare {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using namespace tok;

std::string normalized(const Json& json, const std::string& text) {
  return Normalizer::parse(json, "test").apply(text);
}

TEST(Normalizer, DoesWhatItsNameSays) {
  EXPECT_EQ(normalized(nullptr, " A\u0301 "), " A\u0301 ");
  EXPECT_EQ(normalized({{"type", "NFC"}}, "A\u0301 \u1112\u1161\u11ab"), "\u00c1 \ud55c");
  EXPECT_EQ(normalized({{"type", "NFD"}}, "\u00c1"), "A\u0301");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, "\ufb01 \u2460"), "fi 1");
  EXPECT_EQ(normalized({{"type", "NFKD"}}, "\ufb01\u00c1"), "fiA\u0301");
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "\u00c4\u0130Q"), "\u00e4i\u0307q");
  EXPECT_EQ(normalized({{"type", "StripAccents"}}, "A\u0301b"), "Ab");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, " \u00a0x "), "x ");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "_"}}, "x"), "_x");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "_"}}, ""), "");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", " +"}}}, {"content", "_"}}, "a  b c"), "a_b_c");
  EXPECT_EQ(normalized(Json::parse(R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":" "},
      {"type":"Replace","pattern":{"String":" "},"content":"__"}]})"),
                       "a b"),
            "__a__b");
}

std::vector<std::string> pieces_of(const Json& json, const std::string& text, bool begins = true) {
  const Pretokenizer pretokenizer = Pretokenizer::parse(json, "test");
  Pieces pieces;
  pretokenizer.split(text, begins, pieces);
  return {pieces.list.begin(), pieces.list.end()};
}
Json split_on(const char* regex, const char* behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behavior}, {"invert", invert}};
}

TEST(Pretokenizer, SplitBehavesInFiveWays) {
  const std::string text = "the-final--countdown";
  const auto with = [&](const char* behavior) { return pieces_of(split_on("-", behavior), text); };
  EXPECT_THAT(with("Removed"), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(with("Isolated"), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(with("MergedWithPrevious"), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(with("MergedWithNext"), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(with("Contiguous"), ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(Pretokenizer, InvertSwapsMatchAndGap) {
  EXPECT_THAT(pieces_of(split_on("[a-z]+", "Removed", true), "ab-cd--e"), ElementsAre("ab", "cd", "e"));
  EXPECT_THAT(pieces_of(split_on("[a-z]+", "Isolated", true), "ab-cd"), ElementsAre("ab", "-", "cd"));
}

TEST(Pretokenizer, StringPatternsAreNotRegularExpressions) {
  const Json json = {{"type", "Split"}, {"pattern", {{"String", "."}}}, {"behavior", "Isolated"}};
  EXPECT_THAT(pieces_of(json, "a.b"), ElementsAre("a", ".", "b"));
}

TEST(Pretokenizer, CutsByKind) {
  EXPECT_THAT(pieces_of({{"type", "Digits"}, {"individual_digits", true}}, "a12\u0663"),
              ElementsAre("a", "1", "2", "\u0663"));
  EXPECT_THAT(pieces_of({{"type", "Digits"}, {"individual_digits", false}}, "a12b"), ElementsAre("a", "12", "b"));
  EXPECT_THAT(pieces_of({{"type", "Punctuation"}}, "a?!b"), ElementsAre("a", "?", "!", "b"));
  EXPECT_THAT(pieces_of({{"type", "Whitespace"}}, " Hi, you_2 "), ElementsAre("Hi", ",", "you_2"));
  EXPECT_THAT(pieces_of({{"type", "WhitespaceSplit"}}, " Hi, you "), ElementsAre("Hi,", "you"));
}

TEST(Pretokenizer, MetaspaceMarksWordsAndTheBeginning) {
  const auto json = [](const char* scheme, bool split) {
    return Json{{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}, {"split", split}};
  };
  EXPECT_THAT(pieces_of(json("always", true), "a bc", false), ElementsAre("\u2581a", "\u2581bc"));
  EXPECT_THAT(pieces_of(json("first", false), "a bc", true), ElementsAre("\u2581a\u2581bc"));
  EXPECT_THAT(pieces_of(json("first", false), "a bc", false), ElementsAre("a\u2581bc"));
  EXPECT_THAT(pieces_of(json("never", true), "a bc"), ElementsAre("a", "\u2581bc"));
  EXPECT_THAT(pieces_of(json("always", true), " a"), ElementsAre("\u2581a"));
}

TEST(Pretokenizer, StepsWorkOnThePiecesOfTheStepBefore) {
  const Json json = {
      {"type", "Sequence"},
      {"pretokenizers", {{{"type", "WhitespaceSplit"}}, {{"type", "Digits"}, {"individual_digits", true}}}}};
  EXPECT_THAT(pieces_of(json, "ab12 3"), ElementsAre("ab", "1", "2", "3"));
}

std::vector<std::pair<std::string, int>> cut(std::vector<AddedToken> tokens, const std::string& text,
                                             bool special_too = true) {
  std::vector<TokenFinder::Segment> segments;
  TokenFinder(std::move(tokens), "test").split(text, special_too, segments);
  std::vector<std::pair<std::string, int>> result;
  for (const auto& s : segments) result.emplace_back(s.text, s.id);
  return result;
}
using Cut = std::vector<std::pair<std::string, int>>;

TEST(AddedTokens, AreFoundLeftmostAndLongest) {
  const std::vector<AddedToken> tokens{
      {.id = 1, .content = "<a>"}, {.id = 2, .content = "<a>b"}, {.id = 3, .content = "bc"}};
  EXPECT_EQ(cut(tokens, "x<a>bc"), (Cut{{"x", -1}, {"<a>b", 2}, {"c", -1}}));
  EXPECT_EQ(cut(tokens, "<a><a"), (Cut{{"<a>", 1}, {"<a", -1}}));
  EXPECT_EQ(cut(tokens, ""), Cut{});
}

TEST(AddedTokens, SwallowSpaceWhereTheySaySo) {
  EXPECT_EQ(cut({{.id = 1, .content = "<m>", .lstrip = true}}, "a  <m> b"), (Cut{{"a", -1}, {"  <m>", 1}, {" b", -1}}));
  EXPECT_EQ(cut({{.id = 1, .content = "<m>", .rstrip = true}}, "a <m> \n<m>b"),
            (Cut{{"a ", -1}, {"<m> \n", 1}, {"<m>", 1}, {"b", -1}}));
}

TEST(AddedTokens, OfASingleWordStandAlone) {
  const std::vector<AddedToken> tokens{{.id = 1, .content = "am", .single_word = true}};
  EXPECT_EQ(cut(tokens, "I am, am_ amx"), (Cut{{"I ", -1}, {"am", 1}, {", am_ amx", -1}}));
}

TEST(AddedTokens, SpecialOnesAreTextWhenNotParsed) {
  const std::vector<AddedToken> tokens{{.id = 1, .content = "<s>", .special = true}, {.id = 2, .content = "<n>"}};
  EXPECT_EQ(cut(tokens, "<s><n>", false), (Cut{{"<s>", -1}, {"<n>", 2}}));
}

TEST(AddedTokens, ThatAreNormalizedAreSoughtInNormalizedText) {
  Json parts = {{"normalizer", {{"type", "Prepend"}, {"prepend", "\u2581"}}},
                {"added_tokens", {{{"id", 9}, {"content", "</s>"}, {"normalized", true}, {"special", true}}}}};
  const auto tokenizer = test::load(test::tokenizer_json(test::letters_model(), parts));
  EXPECT_THAT(tokenizer->encode("</s>a"), ElementsAre(9, 1));  // found as "▁</s>"
  EXPECT_THAT(tokenizer->encode("a</s>"), ElementsAre(8, 1));  // not found; "</s>" has no characters here
  parts["added_tokens"][0]["normalized"] = false;
  const auto raw = test::load(test::tokenizer_json(test::letters_model(), parts));
  EXPECT_THAT(raw->encode("a</s>a"), ElementsAre(8, 1, 9, 8, 1));
}

TEST(Template, SurroundsTheText) {
  const Json parts = Json::parse(R"({"added_tokens":[{"id":10,"content":"<s>","special":true},
      {"id":11,"content":"</s>","special":true}],
    "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
      {"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"end","type_id":0}}],"pair":[],
      "special_tokens":{"<s>":{"id":"<s>","ids":[10],"tokens":["<s>"]},"end":{"id":"end","ids":[11,11],"tokens":[]}}}})");
  const auto tokenizer = test::load(test::tokenizer_json(test::letters_model(), parts));
  EXPECT_THAT(tokenizer->encode("ab"), ElementsAre(10, 5, 11, 11));
  EXPECT_THAT(tokenizer->encode("ab", {.add_special = false}), ElementsAre(5));
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->bos(), 10);
}

std::string decoded(const Json& json, std::vector<std::string> tokens) {
  return Decoder::parse(json, "test").decode(std::move(tokens));
}

TEST(Decoder, DoesWhatItsNameSays) {
  EXPECT_EQ(decoded(nullptr, {"a", "b"}), "a b");
  EXPECT_EQ(decoded({{"type", "Fuse"}}, {"a", "b"}), "ab");
  EXPECT_EQ(decoded({{"type", "ByteLevel"}}, {"\u0120a", "\u00c3", "\u00a4"}), " a\u00e4");
  EXPECT_EQ(decoded({{"type", "ByteLevel"}}, {"\u00e2\u0124", "x"}), "\ufffdx");
  EXPECT_EQ(decoded({{"type", "ByteLevel"}}, {"<a b>"}), "<a b>");
  EXPECT_EQ(decoded({{"type", "ByteFallback"}}, {"<0xC3>", "<0xa4>", "x"}), "\u00e4x");
  EXPECT_EQ(decoded({{"type", "ByteFallback"}}, {"<0xC3>", "<0xA4>", "<0xC3>", "x"}), "\ufffd\ufffd\ufffdx");
  EXPECT_EQ(decoded({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 2}}, {"  a   "}), " a ");
  EXPECT_EQ(decoded({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "always"}}, {"_a", "_b"}), "a b");
  EXPECT_EQ(decoded({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "never"}}, {"_a", "_b"}), " a b");
}

// What each file says wrong, and a word the message must contain.
TEST(BadFiles, AreRefusedWithTheReason) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model":{"type":"Unigram","vocab":[["a",0.0]]}})", "Unigram"},
      {R"({"model":{"type":"WordPiece","vocab":{"a":0}}})", "WordPiece"},
      {R"({"normalizer":{"type":"Precompiled","precompiled_charsmap":""}})", "Precompiled"},
      {R"({"pre_tokenizer":{"type":"UnicodeScripts"}})", "UnicodeScripts"},
      {R"({"decoder":{"type":"CTC"}})", "CTC"},
      {R"({"post_processor":{"type":"Odd"}})", "Odd"},
      {R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"}})", "pattern"},
      {R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"[a-z&&[b]]"},"behavior":"Isolated"}})", "intersection"},
      {R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"Sideways"}})", "Sideways"},
      {R"({"added_tokens":[{"id":-1,"content":"x"}]})", "out of range"},
      {R"({"added_tokens":[{"id":99999999,"content":"x"}]})", "out of range"},
      {R"({"added_tokens":[{"id":1}]})", "content"},
      {R"({"model":{"type":"BPE","vocab":{"a":"b"},"merges":[]}})", "id"},
      {R"({"model":{"type":"BPE","vocab":{"a":{"b":1}},"merges":[]}})", "id"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}})", "merge"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","a","a"]]}})", "merge"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[[["a"]]]}})", "merge"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[7]}})", "merge"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.1}})", "dropout"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[],"end_of_word_suffix":"</w>"}})", "end_of_word_suffix"},
      {R"({"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"q"}}],"special_tokens":{}}})",
       "q"},
      {R"({"post_processor":{"type":"RobertaProcessing","cls":["a",500],"sep":["a",0]}})", "500"},
      {R"({"model":null})", "model"},
  };
  for (const auto& [parts, word] : cases) {
    try {
      test::load(test::tokenizer_json(test::letters_model(), Json::parse(parts)));
      ADD_FAILURE() << "accepted: " << parts;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr(word)) << parts;
    }
  }
}

TEST(BadFiles, CutShortAtAnyPlaceNeverCrash) {
  const std::string whole = test::tokenizer_json(test::letters_model({{"unk_token", "<unk>"}}),
                                                 {{"pre_tokenizer", split_on("a+", "Isolated")}})
                                .dump();
  const test::TemporaryDirectory directory;
  for (size_t size = 0; size < whole.size(); ++size) {
    std::ofstream(directory / "tokenizer.json") << whole.substr(0, size);
    EXPECT_THROW(Tokenizer::from_directory(directory.path()), Error);
  }
}

TEST(BadText, ThatIsNotUtf8IsRefused) {
  const auto tokenizer = test::load(test::tokenizer_json(test::letters_model()));
  for (const char* text : {"a\xff", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80"})
    EXPECT_THROW(tokenizer->encode(text), Error);
}

TEST(BadDirectories, SayWhatWasLookedFor) {
  const test::TemporaryDirectory directory;
  try {
    Tokenizer::from_directory(directory.path());
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("tokenizer.json"));
    EXPECT_THAT(e.what(), HasSubstr("vocab.json"));
  }
}

// A pattern that doubles its work with every character must end in a message, not in an hour.
TEST(BadPatterns, ThatBacktrackWithoutEndGiveUp) {
  const Regex regex("(a|a)*(a|a)*(a|aa)*[bd]");
  EXPECT_THROW(regex.for_each_match(std::string(5000, 'a'), [](size_t, size_t) {}), Error);
  EXPECT_THROW(Regex(std::string(100000, 'a')), Error);
  EXPECT_THROW(Regex("a\\hb"), Error);
}

TEST(Patterns, MeanTheSameSpaceAsTheReference) {
  const auto matches = [](const char* pattern, const std::string& text) {
    size_t count = 0;
    Regex(pattern).for_each_match(text, [&](size_t, size_t) { ++count; });
    return count;
  };
  EXPECT_EQ(matches("\\s", "\u0085\u00a0\u2028\u3000\t"), 5u);
  EXPECT_EQ(matches("\\s", "\u180e\u200b"), 0u);
  EXPECT_EQ(matches("[^\\s]", "\u180e\u0085"), 1u);
  EXPECT_EQ(matches("\\S", "\u180e\u0085"), 1u);
  EXPECT_EQ(matches("(?i:'s)", "'S'\u017f"), 2u);
}

}  // namespace
}  // namespace pare
