// Float exports against the reference converter's listings: every key in order, every tensor's name, type, offset and
// bytes (golden/gguf/README.md).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "pare/base/sha256.h"
#include "pare/container/gguf.h"
#include "pare/model/decoder.h"
#include "tests/quantize/model_files.h"

namespace pare {
namespace {

template <class T>
std::string hash_of_numbers(const std::vector<T>& values) {
  return sha256_of(std::as_bytes(std::span(values)));
}

std::string hash_of_strings(const std::vector<std::string>& values) {
  Sha256 hash;
  for (const std::string& s : values) {
    const uint64_t length = s.size();
    hash.update(std::as_bytes(std::span(&length, 1)));
    hash.update(std::as_bytes(std::span(s)));
  }
  return hash.hex();
}

// A value as the listing writes it: scalars as they are, arrays as their hash.
Json listed(const MetaValue& value) {
  return std::visit(
      [](const auto& v) -> Json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::vector<std::string>>)
          return hash_of_strings(v);
        else if constexpr (std::is_same_v<T, std::vector<bool>>)
          return "array of bool";
        else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>)
          return v;
        else
          return hash_of_numbers(v);
      },
      value);
}

Json expected_value(const Json& entry) { return entry.contains("sha256") ? entry["sha256"] : entry["value"]; }

struct Case {
  const char* model;
  std::vector<std::string> keys_that_differ = {};  // deliberately: see tokenizer.h on SentencePiece scores
};

class GgufExport : public testing::TestWithParam<Case> {};

TEST_P(GgufExport, EqualsTheReferenceConverter) {
  const std::string base = std::string("golden/gguf/archs/") + GetParam().model;
  PARE_NEEDS_SHARED(base);
  const Json golden = read_json_file(test::shared(base + ".json").string());
  test::TemporaryDirectory directory;
  for (const char* type : {"f32", "f16", "bf16"}) {
    SCOPED_TRACE(type);
    Settings settings = test::quick_settings(type);
    settings.overwrite = true;
    quantize(test::plan_for(test::shared(base), settings), directory / "x.gguf");
    const auto file = GgufFile::open(directory / "x.gguf");

    const Json& tensors = golden[type]["tensors"];
    ASSERT_EQ(file->entries().size(), tensors.size());
    const std::byte* data = file->entries().front().bytes.data();
    for (size_t i = 0; i < tensors.size(); ++i) {
      const GgufEntry& e = file->entries()[i];
      ASSERT_EQ(e.name, tensors[i]["name"].get<std::string>());
      std::string name(e.type->name);
      for (char& c : name) c = static_cast<char>(std::toupper(c));
      EXPECT_EQ(name, tensors[i]["type"].get<std::string>()) << e.name;
      EXPECT_EQ(e.bytes.data() - data, tensors[i]["offset"].get<int64_t>()) << e.name;
      EXPECT_EQ(sha256_of(e.bytes), tensors[i]["sha256"].get<std::string>()) << e.name;
    }
    if (std::string_view(type) != "f32") continue;
    std::vector<std::string> keys, expected_keys;
    for (const auto& [key, value] : file->metadata().entries()) keys.push_back(key);
    for (const Json& entry : golden["f32"]["kv"]) expected_keys.push_back(entry["key"]);
    EXPECT_EQ(keys, expected_keys);
    for (const Json& entry : golden["f32"]["kv"]) {
      const std::string key = entry["key"];
      const auto& differ = GetParam().keys_that_differ;
      if (std::find(differ.begin(), differ.end(), key) != differ.end()) continue;
      const MetaValue* value = file->metadata().find(key);
      ASSERT_NE(value, nullptr) << key;
      EXPECT_EQ(listed(*value), expected_value(entry)) << key;
    }
  }
}

// The file says all that the forward pass needs: it gives the logits of the directory.
TEST_P(GgufExport, RunsAsTheDirectoryDoes) {
  const std::string base = std::string("golden/gguf/archs/") + GetParam().model;
  PARE_NEEDS_SHARED(base);
  test::TemporaryDirectory directory;
  quantize(test::plan_for(test::shared(base), test::quick_settings("f32")), directory / "x.gguf");
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 40; ++i) tokens.push_back((i * 37 + 11) % 300);
  const Matrix wanted = Decoder(Checkpoint::open(test::shared(base))).logits(tokens);
  const Matrix got = Decoder(Checkpoint::open(directory / "x.gguf")).logits(tokens);
  ASSERT_EQ(got.shape(), wanted.shape());
  float largest = 0, difference = 0;
  for (int64_t i = 0; i < wanted.size(); ++i) {
    largest = std::max(largest, std::abs(wanted.data()[i]));
    difference = std::max(difference, std::abs(wanted.data()[i] - got.data()[i]));
  }
  EXPECT_LT(difference, 1e-5f * largest);
}

// The golden's name of a pre-tokenizer was given by hand where its tokenizer is in no table (golden/gguf/README.md); we
// name the one that the tokenizer really is.
std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const char* name :
       {"llama2-spm", "llama3-rope", "llama-bias-headdim", "llama-sharded", "mistral", "qwen2", "qwen3", "gpt2",
        "gemma", "gemma2", "gemma3", "nemotron", "smollm3", "phi2", "phi3", "phi3-longrope"})
    cases.push_back({name});
  for (const char* name : {"cohere", "cohere2", "glm4", "granite", "olmo", "olmo2", "starcoder2", "stablelm"})
    cases.push_back({name, {"tokenizer.ggml.pre"}});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, GgufExport, testing::ValuesIn(all_cases()), [](const auto& test_case) {
  std::string name = test_case.param.model;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace pare
