// The ids and texts of the reference implementations (shared/golden/tokenizers, shared/testdata/tokenizers/ggml-vocab).
#include "tests/support/golden.h"

#include <gmock/gmock.h>

#include <fstream>
#include <sstream>

#include "pare/base/json.h"
#include "pare/base/mapped_file.h"
#include "pare/container/gguf.h"
#include "pare/tokenizer/tokenizer.h"

namespace pare {
namespace {

using test::shared;

std::vector<int32_t> ids_of(const Json& json) { return json.get<std::vector<int32_t>>(); }

struct Golden {
  std::string golden, directory;
  bool parse_special = true;  // plain SentencePiece does not
  bool bos_in_ids = true;
};
std::ostream& operator<<(std::ostream& out, const Golden& g) { return out << g.golden; }

void expect_golden(const Tokenizer& tokenizer, const Golden& g) {
  const Json golden = read_json_file(shared("golden/tokenizers/" + g.golden + ".json").string());
  ASSERT_GT(golden.at("cases").size(), 100u);
  for (const Json& c : golden.at("cases")) {
    const std::string text = c.at("text");
    SCOPED_TRACE(c.dump());
    const auto ids = tokenizer.encode(text, {.add_special = g.bos_in_ids, .parse_special = g.parse_special});
    const auto plain = tokenizer.encode(text, {.add_special = false, .parse_special = g.parse_special});
    EXPECT_EQ(ids, ids_of(c.at("ids")));
    EXPECT_EQ(plain, ids_of(c.at("ids_no_special")));
    EXPECT_EQ(tokenizer.decode(ids_of(c.at("ids_no_special"))), c.at("decoded").get<std::string>());
    EXPECT_EQ(tokenizer.decode(ids_of(c.at("ids"))), c.at("decoded_with_special").get<std::string>());
    EXPECT_EQ(tokenizer.decode(ids_of(c.at("ids")), {.skip_special = true}),
              c.at("decoded_skip_special").get<std::string>());
  }
  // Of broken byte tokens SentencePiece itself keeps the whole characters before the fault; Hugging Face's form of the
  // same file, which is followed here, replaces the whole run.
  for (const Json& c : golden.at("decode_only")) {
    const std::string expected = c.at("decoded");
    const bool broken = expected.find("\xef\xbf\xbd") != std::string::npos;
    if (g.parse_special || !broken) {
      EXPECT_EQ(tokenizer.decode(ids_of(c.at("ids"))), expected) << c.dump();
    }
  }
}

class GoldenTokenizer : public testing::TestWithParam<Golden> {};

TEST_P(GoldenTokenizer, GivesTheReferencesIdsAndTexts) {
  PARE_NEEDS_SHARED("golden/tokenizers");
  expect_golden(*Tokenizer::from_directory(shared("testdata/" + GetParam().directory)), GetParam());
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer,
                         testing::Values(Golden{"llama-2.tokenizer_json", "tokenizers/llama-2"},
                                         Golden{"phi-3-mini.tokenizer_json", "tokenizers/phi-3-mini"},
                                         Golden{"falcon.tokenizer_json", "tokenizers/falcon"},
                                         Golden{"roberta-base.tokenizer_json", "tokenizers/roberta-base"},
                                         Golden{"tinystories-656k.tokenizer_json", "models/tinystories-656k-hf"},
                                         Golden{"gpt2.transformers4", "tokenizers/gpt2"},
                                         Golden{"gpt2.transformers", "tokenizers/gpt2"},
                                         Golden{"qwen2-0.5b.transformers4", "tokenizers/qwen2-0.5b"},
                                         Golden{"qwen2-0.5b.transformers", "tokenizers/qwen2-0.5b"},
                                         Golden{"slm4096-gpt2.transformers4", "models/slm4096-gpt2-hf"},
                                         Golden{"stories260K.transformers4", "models/stories260K-hf"},
                                         Golden{"llama-3.tiktoken", "tokenizers/llama-3"},
                                         Golden{"stories260K.sentencepiece", "models/stories260K-hf", false, false}),
                         [](const auto& instance) {
                           std::string name = instance.param.golden;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

// Tokenizers that lie in two folders.
TEST(GoldenTokenizers, Qwen3HasTheVocabularyOfQwen2WithMoreAddedTokens) {
  PARE_NEEDS_SHARED("golden/tokenizers");
  const test::TemporaryDirectory directory;
  for (const char* name : {"vocab.json", "merges.txt"})
    std::filesystem::copy(shared("testdata/tokenizers/qwen2-0.5b") / name, directory / name);
  for (const char* name : {"tokenizer_config.json", "config.json", "generation_config.json"})
    std::filesystem::copy(shared("testdata/tokenizers/qwen3-0.6b-configs") / name, directory / name);
  expect_golden(*Tokenizer::from_directory(directory.path()), {"qwen3-0.6b.transformers4", ""});
}

TEST(GoldenTokenizers, Llama2FromTheSentencePieceModelAlone) {
  PARE_NEEDS_SHARED("golden/tokenizers");
  const test::TemporaryDirectory directory;
  std::filesystem::copy(shared("testdata/tokenizers/llama-2/tokenizer.model"), directory / "tokenizer.model");
  expect_golden(*Tokenizer::from_directory(directory.path()), {"llama-2.sentencepiece", "", false, false});
}

// llama.cpp's own vectors: texts separated by a line of their own, ids in the same order.
struct Vector {
  std::string vocabulary, vectors;
};

std::vector<std::string> vector_texts(const std::string& name) {
  const std::string all = read_text_file(shared("testdata/tokenizers/ggml-vocab/ggml-vocab-" + name + ".gguf.inp"));
  const std::string mark = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  for (size_t at = 0; at <= all.size();) {
    const size_t end = std::min(all.find(mark, at), all.size());
    texts.push_back(all.substr(at, end - at));
    at = end + mark.size();
  }
  return texts;
}

void expect_vectors(const Tokenizer& tokenizer, const std::string& name) {
  std::ifstream out(shared("testdata/tokenizers/ggml-vocab/ggml-vocab-" + name + ".gguf.out"));
  size_t compared = 0;
  for (const std::string& text : vector_texts(name)) {
    std::string line;
    std::getline(out, line);
    std::istringstream numbers(line);
    const std::vector<int32_t> ids{std::istream_iterator<int32_t>(numbers), {}};
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false, .parse_special = false}), ids) << name << ": " << text;
    compared += !ids.empty();
  }
  EXPECT_GT(compared, 40u) << name;
}

TEST(GgufVocabularies, GiveLlamaCppsIds) {
  PARE_NEEDS_SHARED("testdata/tokenizers/ggml-vocab");
  for (const char* name : {"gpt-2", "falcon", "deepseek-llm", "llama-spm", "phi-3"}) {
    const auto path = shared(std::string("testdata/tokenizers/ggml-vocab/ggml-vocab-") + name + ".gguf");
    expect_vectors(*Tokenizer::from_metadata(GgufFile::open(path)->metadata(), path.string()), name);
  }
}

TEST(GgufVocabularies, HuggingFaceFilesOfTheSameModelsGiveThemToo) {
  PARE_NEEDS_SHARED("testdata/tokenizers/ggml-vocab");
  const auto from = [](const char* name) {
    return Tokenizer::from_directory(shared(std::string("testdata/tokenizers/") + name));
  };
  expect_vectors(*from("llama-3"), "llama-bpe");
  expect_vectors(*from("llama-2"), "llama-spm");
  expect_vectors(*from("qwen2-0.5b"), "qwen2");
  expect_vectors(*from("qwen2-0.5b"), "deepseek-r1-qwen");
  expect_vectors(*from("gpt2"), "gpt-2");
  expect_vectors(*from("falcon"), "falcon");
}

}  // namespace
}  // namespace pare
