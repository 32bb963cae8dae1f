#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "pare/container/safetensors.h"
#include "tests/cli/run_pare.h"

namespace pare::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// "1,5,9" of a JSON array.
std::string joined(const Json& ids) {
  std::string out;
  for (const Json& id : ids) {
    if (!out.empty()) out += ',';
    out += id.dump();
  }
  return out;
}

TEST(PareRun, ContinuesAText) {
  const Outcome plain = pare({"run", demo_model(), "-p", "Once upon a time", "-n", "12", "-q"});
  EXPECT_EQ(plain.code, 0) << plain.err;
  EXPECT_THAT(plain.out, StartsWith("Once upon a time"));
  EXPECT_EQ(plain.err, "");
  const Json json = pare({"run", demo_model(), "-p", "Once upon a time", "-n", "12", "--json"}).json();
  EXPECT_EQ(json.at("prompt_tokens").at(0), 4094);  // the tokenizer's BOS
  EXPECT_EQ(json.at("tokens").size(), 12u);
  EXPECT_EQ("Once upon a time" + json.at("text").get<std::string>() + "\n", plain.out);
  EXPECT_GE(json.at("prefill_seconds").get<double>(), 0);
  EXPECT_GE(json.at("decode_seconds").get<double>(), 0);
}

TEST(PareRun, APromptFromAFileOrAsTokensIsTheSame) {
  const TemporaryDirectory folder;
  write_file(folder / "prompt", "Once upon a time");
  const Json from_text = pare({"run", demo_model(), "-p", "Once upon a time", "-n", "8", "--json"}).json();
  const Json from_file = pare({"run", demo_model(), "--prompt_file", folder / "prompt", "-n", "8", "--json"}).json();
  const std::string ids = joined(from_text.at("prompt_tokens"));
  const Json from_ids = pare({"run", demo_model(), "--tokens", ids, "-n", "8", "--json"}).json();
  for (const char* key : {"prompt_tokens", "tokens", "text"}) {
    EXPECT_EQ(from_file.at(key), from_text.at(key)) << key;
    EXPECT_EQ(from_ids.at(key), from_text.at(key)) << key;
  }
}

TEST(PareRun, TheSeedDecides) {
  const auto text = [](const char* seed) {
    return pare({"run", demo_model(), "-p", "The", "-n", "20", "--temperature", "1", "--top-k", "200", "--top-p",
                 "0.95", "--min-p", "0.001", "--seed", seed, "--json"})
        .json()
        .at("tokens");
  };
  EXPECT_EQ(text("1"), text("1"));
  EXPECT_NE(text("1"), text("2"));
}

TEST(PareRun, SavesLogitsOfEveryPosition) {
  const TemporaryDirectory folder;
  const auto file = folder / "logits.safetensors";
  const Outcome got = pare({"run", demo_model(), "--tokens", "4094,1,5,9", "--logits", file, "--json"});
  ASSERT_EQ(got.code, 0) << got.err;
  EXPECT_EQ(got.json().at("tokens").size(), 0u);
  const auto saved = SafetensorsFile::open(file);
  ASSERT_EQ(saved->entries().size(), 1u);
  EXPECT_EQ(saved->entries()[0].name, "logits");
  EXPECT_EQ(saved->entries()[0].shape, (std::vector<int64_t>{4, 4096}));

  // The last row's largest is what greedy decoding picks.
  std::vector<float> logits(4 * 4096);
  to_f32(DType::f32, saved->entries()[0].bytes, logits);
  const auto largest = std::max_element(logits.end() - 4096, logits.end()) - (logits.end() - 4096);
  const Json next = pare({"run", demo_model(), "--tokens", "4094,1,5,9", "-n", "1", "--json"}).json();
  EXPECT_EQ(next.at("tokens").at(0), largest);
}

TEST(PareRun, WithoutATokenizerPrintsIds) {
  const TemporaryDirectory folder;
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(demo_model() / name, folder / name);
  const Outcome got = pare({"run", folder.path(), "--tokens", "4094,100", "-n", "3"});
  EXPECT_EQ(got.code, 0) << got.err;
  EXPECT_THAT(got.out, testing::MatchesRegex("[0-9]+,[0-9]+,[0-9]+\n"));
  EXPECT_TRUE(pare({"run", folder.path(), "--tokens", "4094,100", "-n", "3", "--json"}).json().at("text").is_null());
  EXPECT_EQ(pare({"run", folder.path(), "-p", "text"}).code, 3);
}

TEST(PareRun, MistakesAreSaid) {
  EXPECT_EQ(pare({"run", demo_model()}).code, 2);
  EXPECT_EQ(pare({"run", demo_model(), "-p", "a", "--tokens", "1"}).code, 2);
  EXPECT_EQ(pare({"run", demo_model(), "--tokens", "1,x"}).code, 2);
  EXPECT_EQ(pare({"run", demo_model(), "-p", "a", "--top-p", "0"}).code, 2);
  const Outcome range = pare({"run", demo_model(), "--tokens", "1,4096", "--json"});
  EXPECT_EQ(range.code, 3);
  EXPECT_EQ(range.json().at("error").at("expected"), "0 … 4095");
  EXPECT_EQ(pare({"run", demo_model(), "--tokens", "-1"}).code, 3);
  EXPECT_EQ(pare({"run", demo_model(), "--tokens", ""}).code, 3);
  EXPECT_EQ(pare({"run", demo_model(), "-p", "\xff"}).code, 3);
  EXPECT_EQ(pare({"run", demo_model(), "--tokens", "1", "--logits", "/nowhere/x"}).code, 3);
}

TEST(PareRun, NeverReplacesTheModelByItsLogits) {
  const TemporaryDirectory folder;
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(demo_model() / name, folder / name);
  EXPECT_EQ(pare({"run", folder.path(), "--tokens", "1", "--logits", folder / "model.safetensors"}).code, 2);
  EXPECT_EQ(std::filesystem::file_size(folder / "model.safetensors"),
            std::filesystem::file_size(demo_model() / "model.safetensors"));
}

TEST(PareRun, SaysWhenTheContextEnds) {
  std::string ids = "4094";
  for (int i = 0; i < 504; ++i) ids += ",262";
  const Outcome got = pare({"run", demo_model(), "--tokens", ids, "--ignore-eos", "--json"});
  EXPECT_EQ(got.code, 0);
  EXPECT_EQ(got.json().at("tokens").size(), 7u);
  EXPECT_THAT(got.err, HasSubstr("leaves room for 7"));
  const Outcome full = pare({"run", demo_model(), "--tokens", ids + ",1,1,1,1,1,1,1", "--json"});
  EXPECT_EQ(full.code, 3);
  EXPECT_EQ(full.json().at("error").at("got"), "512");
}

TEST(PareRun, LogitsEqualTheReference) {
  PARE_NEEDS_SHARED("golden/logits/llama/inputs.json");
  const TemporaryDirectory folder;
  for (const char* name : {"llama", "opt_125m", "qwen3"}) {
    const auto golden = shared(std::string("golden/logits/") + name);
    const Json inputs = read_json_file(golden / "inputs.json");
    const std::string ids = joined(inputs.at("sequences").at(1));
    const auto file = folder / (std::string(name) + ".safetensors");
    ASSERT_EQ(pare({"run", golden, "--tokens", ids, "--logits", file, "-q"}).code, 0) << name;
    const auto got = SafetensorsFile::open(file);
    const auto reference = SafetensorsFile::open(golden / "logits.safetensors");
    for (const SafetensorsEntry& entry : reference->entries()) {
      if (entry.name != "logits_1") continue;
      ASSERT_EQ(got->entries()[0].shape, entry.shape) << name;
      std::vector<float> a(entry.bytes.size() / 4), b(a.size());
      to_f32(DType::f32, entry.bytes, a);
      to_f32(DType::f32, got->entries()[0].bytes, b);
      float largest = 0, difference = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(a[i]));
        difference = std::max(difference, std::abs(a[i] - b[i]));
      }
      EXPECT_LE(difference, 1e-4 * largest) << name;
    }
  }
}

TEST(PareRun, StopsOnASignal) {
  RunningPare running({"run", demo_model(), "-p", "The", "-n", "500", "--ignore-eos", "--threads", "1"});
  ASSERT_TRUE(running.wait_for_out("The"));
  running.send(SIGINT);
  EXPECT_EQ(running.wait().code, 6);
}

}  // namespace
}  // namespace pare::test
