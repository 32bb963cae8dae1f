// Perplexities against transformers (golden/perplexity) and llama.cpp (golden/perplexity_llamacpp), from their own
// token ids.
#include <gtest/gtest.h>

#include <cstring>

#include "pare/base/json.h"
#include "pare/base/mapped_file.h"
#include "pare/eval/perplexity.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

using Protocol = PerplexityProtocol;

struct Case {
  const char* model;
  const char* text;  // as in the names of the golden files
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.model << " on " << c.text; }

class HfGolden : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    PARE_NEEDS_SHARED("golden/perplexity/perplexity.json");
    PARE_NEEDS_SHARED("testdata/models");
    const auto [model, text] = GetParam();
    golden_ = read_json_file(test::shared("golden/perplexity/perplexity.json"))["results"].at(std::string(model) + ":" +
                                                                                              text);
    const Json ids = read_json_file(test::shared(std::string("golden/perplexity/ids_") + model + "_" + text + ".json"));
    tokens_ = (ids.is_array() ? ids : ids.at("ids")).get<std::vector<int32_t>>();
    model_ = std::make_unique<Decoder>(Checkpoint::open(test::shared(std::string("testdata/models/") + model)));
  }
  void expect(const char* key, Protocol protocol, int64_t context, int64_t stride) {
    const Json& expected = golden_.at(key);
    const auto got =
        perplexity(*model_, tokens_, std::nullopt, {.protocol = protocol, .context = context, .stride = stride});
    EXPECT_EQ(got.windows, expected.at("windows").get<int64_t>()) << key;
    EXPECT_EQ(got.tokens, expected.at("tokens_scored").get<int64_t>()) << key;
    EXPECT_NEAR(got.perplexity / expected.at("ppl").get<double>(), 1, 1e-5) << key;
    EXPECT_GT(got.perplexity_stderr, 0) << key;
    EXPECT_LT(got.perplexity_stderr, 0.1 * got.perplexity) << key;
  }
  Json golden_;
  std::vector<int32_t> tokens_;
  std::unique_ptr<Decoder> model_;
};

TEST_P(HfGolden, EqualsTransformers) {
  const int64_t n = golden_.at("N").get<int64_t>();
  ASSERT_EQ(static_cast<int64_t>(tokens_.size()), golden_.at("tokens_used").get<int64_t>());
  expect("stride_N", Protocol::hf, n, 0);
  expect("stride_N_half", Protocol::hf, n, n / 2);
  expect("gptq_seqlen_N", Protocol::gptq, n, 0);
  expect("gptq_seqlen_N_half", Protocol::gptq, n / 2, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, HfGolden,
                         testing::Values(Case{"tinystories-656k-hf", "tiny.txt"}, Case{"stories260K-hf", "tiny.txt"},
                                         Case{"slm4096-gpt2-hf", "corpus.txt"},
                                         Case{"tinystories-656k-hf", "tinyshakespeare.txt"}));

// NumPy's .npy, version 1: "\x93NUMPY", two bytes of version, u16 length of a header in words, then the numbers.
std::vector<int32_t> read_npy_ids(const std::filesystem::path& path) {
  const std::string bytes = read_text_file(path);
  const size_t begin = 10 + static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  EXPECT_NE(bytes.substr(0, begin).find("<i4"), std::string::npos);
  std::vector<int32_t> out((bytes.size() - begin) / 4);
  std::memcpy(out.data(), bytes.data() + begin, out.size() * 4);
  return out;
}

TEST(LlamaCppGolden, EqualsLlamaPerplexity) {
  PARE_NEEDS_SHARED("golden/perplexity_llamacpp/results.json");
  PARE_NEEDS_SHARED("testdata/models/tinystories-656k-wide256-hf");
  const Json golden = read_json_file(test::shared("golden/perplexity_llamacpp/results.json"));
  const auto tokens = read_npy_ids(test::shared("golden/perplexity_llamacpp/tokens.npy"));
  ASSERT_EQ(static_cast<int64_t>(tokens.size()), golden.at("tokens").get<int64_t>());
  const Decoder model(Checkpoint::open(test::shared("testdata/models/tinystories-656k-wide256-hf")));
  for (const int64_t context : {512, 256}) {
    const Json& expected = golden.at("runs").at(std::to_string(context)).at("F32, f32 kv cache").at("ppl");
    const auto got = perplexity(model, tokens, tokens[0], {.protocol = Protocol::llama_cpp, .context = context});
    EXPECT_EQ(got.tokens, got.windows * (context - 1 - context / 2));
    EXPECT_NEAR(got.perplexity / expected.at("PPL").get<double>(), 1, 1e-5) << "context " << context;
    EXPECT_NEAR(got.perplexity_stderr / expected.at("PPL_err").get<double>(), 1, 1e-4) << "context " << context;
  }
}

}  // namespace
}  // namespace pare
