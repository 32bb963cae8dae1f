// gguf_vocabulary against what the reference converter wrote (shared/golden/gguf).
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/base/mapped_file.h"
#include "pare/base/metadata.h"
#include "pare/base/sha256.h"
#include "pare/tokenizer/tokenizer.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

using test::shared;

// The listing's hash of an array: numbers as their little-endian bytes; strings as (u64 length, bytes) each.
template <class T>
std::string hash_of(const std::vector<T>& values) {
  std::string bytes;
  const auto add = [&](const void* data, size_t size) { bytes.append(static_cast<const char*>(data), size); };
  for (const T& v : values) {
    if constexpr (std::is_same_v<T, std::string>) {
      const uint64_t length = v.size();
      add(&length, sizeof(length));
      bytes += v;
    } else {
      add(&v, sizeof(v));
    }
  }
  return sha256_of(std::as_bytes(std::span(bytes)));
}

template <class T>
bool equals(const MetaValue& value, const Json& entry, const char* type) {
  const auto* v = std::get_if<T>(&value);
  return v && entry.at("type") == type && entry.at("value").get<T>() == *v;
}
template <class T>
bool equals_array(const MetaValue& value, const Json& entry, const char* element) {
  const auto* v = std::get_if<std::vector<T>>(&value);
  if (!v || entry.at("type") != "array" || entry.at("elem") != element) return false;
  if (entry.contains("sha256")) return entry.at("len") == v->size() && entry.at("sha256") == hash_of(*v);
  return entry.at("value").get<std::vector<T>>() == *v;
}
bool equals_entry(const MetaValue& value, const Json& entry) {
  return equals<uint32_t>(value, entry, "uint32") || equals<bool>(value, entry, "bool") ||
         equals<std::string>(value, entry, "string") || equals_array<int32_t>(value, entry, "int32") ||
         equals_array<float>(value, entry, "float32") || equals_array<std::string>(value, entry, "string");
}

// Every tokenizer.* key of the listing, in its order, and no other; `except` is compared only by type and length.
void expect_listing(const Metadata& metadata, const Json& listing, const std::string& except = "") {
  std::vector<const Json*> wanted;
  for (const Json& entry : listing)
    if (entry.at("key").get<std::string>().starts_with("tokenizer.")) wanted.push_back(&entry);
  std::vector<std::string> keys, wanted_keys;
  for (const auto& entry : metadata.entries()) keys.push_back(entry.first);
  for (const Json* entry : wanted) wanted_keys.push_back(entry->at("key"));
  ASSERT_EQ(keys, wanted_keys);
  for (size_t i = 0; i < keys.size(); ++i)
    if (keys[i] != except) {
      EXPECT_TRUE(equals_entry(metadata.entries()[i].second, *wanted[i])) << wanted[i]->dump();
    }
}

class Architecture : public testing::TestWithParam<const char*> {};

TEST_P(Architecture, HasTheConvertersTokenizerKeys) {
  const std::string name = GetParam();
  PARE_NEEDS_SHARED("golden/gguf/archs/" + name);
  const Json golden = read_json_file(shared("golden/gguf/archs/" + name + ".json").string());
  const int64_t size = read_json_file(shared("golden/gguf/archs/" + name + "/config.json").string()).at("vocab_size");
  expect_listing(gguf_vocabulary(shared("golden/gguf/archs/" + name), size), golden.at("f32").at("kv"));
}

INSTANTIATE_TEST_SUITE_P(All, Architecture,
                         testing::Values("llama2-spm", "llama3-rope", "llama-bias-headdim", "llama-sharded", "mistral",
                                         "mixtral", "qwen2", "qwen2-moe", "qwen3", "qwen3-moe", "gpt2", "gptneox",
                                         "smollm3", "phi3"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(QuantizedGoldens, HaveTheConvertersTokenizerKeys) {
  PARE_NEEDS_SHARED("golden/gguf/quantized-a.json");
  for (const char* model : {"a", "b"}) {
    const Json golden = read_json_file(shared(std::string("golden/gguf/quantized-") + model + ".json").string());
    expect_listing(gguf_vocabulary(shared(std::string("golden/gguf/hf-") + model), 512),
                   golden.at(std::string(model) + "-f32").at("kv"));
  }
}

// A directory as the listing describes it: files of one or two folders, some left out, a small config.json added.
void assemble(const Json& entry, const std::filesystem::path& to) {
  std::vector<std::string> sources{entry.at("source")};
  if (entry.contains("vocab_and_merges_from")) sources.push_back(entry.at("vocab_and_merges_from"));
  for (const Json& file : entry.at("files"))
    for (const std::string& source : sources) {
      const auto from = shared("testdata/" + source) / file.get<std::string>();
      if (std::filesystem::exists(from))
        std::filesystem::copy_file(from, to / file.get<std::string>(), std::filesystem::copy_options::skip_existing);
    }
  for (const char* added : {"config_json_added", "tokenizer_config_json_added"}) {
    if (!entry.contains(added)) continue;
    const std::string name = std::string(added) == "config_json_added" ? "config.json" : "tokenizer_config.json";
    std::ofstream(to / name) << entry.at(added).dump();
  }
}

class PublishedTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(PublishedTokenizer, HasTheConvertersKeys) {
  PARE_NEEDS_SHARED("golden/gguf/tokenizers/tokenizer_kv.json");
  const Json all = read_json_file(shared("golden/gguf/tokenizers/tokenizer_kv.json").string());
  const Json& entry = all.at(GetParam());
  const test::TemporaryDirectory directory;
  assemble(entry, directory.path());
  int64_t size = 0;
  for (const Json& kv : entry.at("kv"))
    if (kv.at("key") == "tokenizer.ggml.tokens") size = kv.at("len");
  const bool json_only = entry.at("files").dump().find("tokenizer.model") == std::string::npos;
  const bool spm = entry.at("kv").dump().find("ggml.scores") != std::string::npos;
  // The reference's fault: scores of -1000 for every token; ours are right (tested below).
  expect_listing(gguf_vocabulary(directory.path(), size), entry.at("kv"),
                 json_only && spm ? "tokenizer.ggml.scores" : "");
}

INSTANTIATE_TEST_SUITE_P(All, PublishedTokenizer,
                         testing::Values("gpt2", "llama-2", "llama-2-json-only", "phi-3-mini-as-llama", "falcon",
                                         "qwen2-0.5b", "qwen3-0.6b", "qwen3-30b-a3b", "stories260K",
                                         "tinystories-656k"),
                         [](const auto& instance) {
                           std::string name;
                           for (const char c : std::string(instance.param))
                             name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

// The purpose of it all: a reader of the written vocabulary tokenizes as the model's own tokenizer does.
void expect_same_ids(const Tokenizer& written, const Tokenizer& original, const std::string& text) {
  const EncodeOptions plain{.add_special = false};
  EXPECT_EQ(written.encode(text, plain), original.encode(text, plain));
  EXPECT_EQ(written.encode(text), original.encode(text));
}

TEST(WrittenVocabulary, OfAJsonOnlySentencePieceTokenizerTokenizesRight) {
  PARE_NEEDS_SHARED("testdata/models/tinystories-656k-hf");
  const std::string text = read_text_file(shared("testdata/text/tiny.txt"));
  const auto directory = shared("testdata/models/tinystories-656k-hf");
  const auto written = Tokenizer::from_metadata(gguf_vocabulary(directory, 2048), "written");
  const auto original = Tokenizer::from_directory(directory);
  expect_same_ids(*written, *original, text);
  EXPECT_EQ(written->encode(text).size(), original->encode(text).size());
}

TEST(WrittenVocabulary, OfLlama2FromJsonAloneEqualsTheModelFile) {
  PARE_NEEDS_SHARED("testdata/tokenizers/llama-2");
  const test::TemporaryDirectory directory;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy(shared("testdata/tokenizers/llama-2") / name, directory / name);
  const auto written = Tokenizer::from_metadata(gguf_vocabulary(directory.path(), 32000), "written");
  const auto original = Tokenizer::from_directory(shared("testdata/tokenizers/llama-2"));
  expect_same_ids(*written, *original, read_text_file(shared("testdata/text/multilingual.txt")));
}

TEST(WrittenVocabulary, OfTheDemoModelTokenizesAsTheOriginal) {
  const Metadata metadata = gguf_vocabulary(test::demo_model(), 4096);
  EXPECT_EQ(metadata.text("tokenizer.ggml.pre"), "llama-bpe");
  EXPECT_EQ(metadata.integer("tokenizer.ggml.bos_token_id"), 4094);
  EXPECT_EQ(metadata.integer("tokenizer.ggml.eos_token_id"), 4095);
  EXPECT_EQ(metadata.boolean("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(metadata.array<std::string>("tokenizer.ggml.tokens")->size(), 4096u);
  const auto written = Tokenizer::from_metadata(metadata, "written");
  const auto original = Tokenizer::from_directory(test::demo_model());
  expect_same_ids(*written, *original, read_text_file(test::demo_model() / "eval.txt"));
  EXPECT_EQ(written->bos(), original->bos());
  EXPECT_EQ(written->eos(), original->eos());
  EXPECT_TRUE(written->adds_bos());
}

TEST(WrittenVocabulary, PadsToTheModelsSizeAndRefusesASmallerOne) {
  const Metadata metadata = gguf_vocabulary(test::demo_model(), 4100);
  EXPECT_EQ(metadata.array<std::string>("tokenizer.ggml.tokens")->at(4099), "[PAD4099]");
  EXPECT_EQ(metadata.array<int32_t>("tokenizer.ggml.token_type")->at(4099), 5);
  EXPECT_EQ(metadata.array<int32_t>("tokenizer.ggml.token_type")->at(4095), 3);
  EXPECT_THROW(gguf_vocabulary(test::demo_model(), 4000), Error);
  EXPECT_THROW(gguf_vocabulary(test::demo_model(), 0), Error);
}

}  // namespace
}  // namespace pare
