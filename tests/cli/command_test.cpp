// The program from outside: exit codes, streams, help, and `pare eval`.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/cli/run_pare.h"

namespace pare::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kCommands[] = {"inspect", "plan", "quantize", "recipes", "eval", "run"};

// ---- manners

TEST(Pare, AloneListsItsCommands) {
  const Outcome got = pare({});
  EXPECT_EQ(got.code, 0);
  for (const char* command : kCommands) EXPECT_THAT(got.out, HasSubstr(std::string("\n  ") + command));
  EXPECT_EQ(got.err, "");
  EXPECT_EQ(pare({"--help"}).out, got.out);
  EXPECT_EQ(pare({"help"}).out, got.out);
}

TEST(Pare, SaysItsVersion) {
  const Outcome got = pare({"--version"});
  EXPECT_EQ(got.code, 0);
  EXPECT_THAT(got.out, testing::MatchesRegex("pare [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(Pare, HelpOfEveryCommandStartsWithAnExampleAndFitsOneScreen) {
  for (const char* command : kCommands) {
    const Outcome got = pare({command, "--help"});
    EXPECT_EQ(got.code, 0) << command;
    EXPECT_THAT(got.out, StartsWith(std::string("example: pare ") + command));
    EXPECT_LE(std::ranges::count(got.out, '\n'), 32) << got.out;
    size_t longest = 0, line = 0;
    for (const char c : got.out) {
      line = c == '\n' ? 0 : line + ((c & 0xC0) != 0x80);
      longest = std::max(longest, line);
    }
    EXPECT_LE(longest, 100u) << got.out;
    EXPECT_EQ(pare({"help", command}).out, got.out);
  }
}

TEST(Pare, MistakesOfUsageExitWith2AndSuggest) {
  EXPECT_THAT(pare({"evil"}).err, HasSubstr("did you mean 'eval'?"));
  EXPECT_EQ(pare({"evil"}).code, 2);
  EXPECT_EQ(pare({"--json"}).code, 2);
  const Outcome option = pare({"eval", "m", "--ppl", "f", "--contxt", "5"});
  EXPECT_EQ(option.code, 2);
  EXPECT_THAT(option.err, AllOf(StartsWith("error: "), HasSubstr("did you mean --context?")));
  EXPECT_EQ(option.out, "");
  for (const char* command : {"inspect", "eval", "run", "quantize", "plan"}) EXPECT_EQ(pare({command}).code, 2);
}

TEST(Pare, ErrorsAreJsonOnRequest) {
  const Outcome input = pare({"inspect", "/nowhere/at/all", "--json"});
  EXPECT_EQ(input.code, 3);
  const Json error = input.json().at("error");
  EXPECT_EQ(error.at("code"), 3);
  EXPECT_THAT(error.at("where").get<std::string>(), HasSubstr("/nowhere/at/all"));
  for (const char* key : {"what", "expected", "got", "remedy"}) EXPECT_TRUE(error.at(key).is_string()) << key;
  EXPECT_EQ(input.json().size(), 1u);

  const Outcome usage = pare({"eval", "--json", "--nonsense"});  // before the options are known
  EXPECT_EQ(usage.code, 2);
  EXPECT_EQ(usage.json().at("error").at("code"), 2);
}

TEST(Pare, ErrorsAreLinesOfJsonInTheLogOnRequest) {
  const Outcome got = pare({"inspect", "/nowhere", "--log", "json"});
  EXPECT_EQ(got.out, "");
  EXPECT_EQ(parse_json(got.err, "log").at("event"), "error");
}

TEST(Pare, AFullDiskUnderStandardOutputIsSaid) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const Outcome got = RunningPare({"inspect", demo_model()}, "/dev/full").wait();
  EXPECT_EQ(got.code, 4);
  EXPECT_THAT(got.err, HasSubstr("standard output"));
}

// ---- eval

TEST(PareEval, PrintsOneJsonObjectAndNothingElse) {
  const TemporaryDirectory folder;
  const auto report = folder / "report.json";
  const Outcome got = pare({"eval", demo_model(), "--ppl", short_text(folder), "--context", "64", "--stride=32",
                            "--json", "--report", report});
  EXPECT_EQ(got.code, 0) << got.err;
  const Json json = got.json();
  EXPECT_EQ(json.at("protocol"), "hf");
  EXPECT_EQ(json.at("context"), 64);
  EXPECT_EQ(json.at("stride"), 32);
  EXPECT_GT(json.at("tokens").get<int>(), 500);
  EXPECT_GT(json.at("perplexity").get<double>(), 10);
  EXPECT_LT(json.at("perplexity").get<double>(), 500);
  EXPECT_GT(json.at("perplexity_stderr").get<double>(), 0);
  EXPECT_EQ(read_json_file(report), json);
  EXPECT_THAT(got.err, HasSubstr("evaluate"));
}

TEST(PareEval, TheTextFormSaysTheSame) {
  const TemporaryDirectory folder;
  const std::string text = short_text(folder);
  const Outcome plain = pare({"eval", demo_model(), "--ppl", text, "--protocol", "gptq", "--quiet"});
  EXPECT_THAT(plain.out, AllOf(StartsWith("perplexity "), HasSubstr("±"), HasSubstr("windows of 512")));
  EXPECT_EQ(plain.err, "");
  const Json json = pare({"eval", demo_model(), "--ppl", text, "--protocol", "gptq", "--json", "true"}).json();
  EXPECT_NEAR(std::stod(plain.out.substr(11)), json.at("perplexity").get<double>(), 1e-4);
}

TEST(PareEval, ThreadsChangeNothing) {
  const TemporaryDirectory folder;
  const std::string text = short_text(folder);
  const Outcome one = pare({"eval", demo_model(), "--ppl", text, "--context", "100", "--json", "--threads", "1"});
  const Outcome three = pare({"eval", demo_model(), "--ppl", text, "--context", "100", "--json", "--threads", "3"});
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(one.out, three.out);
}

TEST(PareEval, ProgressCanBeJsonLines) {
  const TemporaryDirectory folder;
  const Outcome got = pare({"eval", demo_model(), "--ppl", short_text(folder), "--context", "64", "--log", "json"});
  ASSERT_EQ(got.code, 0) << got.err;
  std::istringstream lines(got.err);
  Json last;
  for (std::string line; std::getline(lines, line);) last = parse_json(line, "log");
  EXPECT_EQ(last.at("event"), "progress");
  EXPECT_EQ(last.at("done"), last.at("total"));
  EXPECT_GT(last.at("perplexity").get<double>(), 1);
}

TEST(PareEval, AGateThatFailsExitsWith5AndStillSaysTheResult) {
  const TemporaryDirectory folder;
  const std::string text = short_text(folder);
  const Outcome failed = pare({"eval", demo_model(), "--ppl", text, "--max-ppl", "2", "--json"});
  EXPECT_EQ(failed.code, 5);
  EXPECT_EQ(failed.json().at("error").at("code"), 5);
  EXPECT_GT(failed.json().at("perplexity").get<double>(), 2);
  EXPECT_EQ(pare({"eval", demo_model(), "--ppl", text, "--max_ppl", "1e6"}).code, 0);
}

TEST(PareEval, UnusableTextsAreRefused) {
  const TemporaryDirectory folder;
  write_file(folder / "empty.txt", "");
  write_file(folder / "latin1.txt", "caf\xe9 au lait");
  write_file(folder / "short.txt", "One sentence.");
  const auto error = [&](const std::string& file, std::vector<std::string> more = {}) {
    std::vector<std::string> words = {"eval", demo_model(), "--ppl", folder / file};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome got = pare(words);
    EXPECT_EQ(got.code, 3) << file;
    EXPECT_EQ(got.out, "");
    return got.err;
  };
  EXPECT_THAT(error("empty.txt"), HasSubstr("empty"));
  EXPECT_THAT(error("latin1.txt"), AllOf(HasSubstr("not UTF-8"), HasSubstr("byte 3")));
  EXPECT_THAT(error("short.txt", {"--protocol", "llama.cpp"}), HasSubstr("at least 1024 tokens"));
  EXPECT_THAT(error("missing.txt"), HasSubstr("missing.txt"));
}

TEST(PareEval, SignalsEndItWith6) {
  for (const int signal : {SIGINT, SIGTERM}) {
    RunningPare running({"eval", demo_model(), "--ppl", demo_model() / "eval.txt", "--stride", "64", "--json"});
    ASSERT_TRUE(running.wait_for_err("evaluate"));
    running.send(signal);
    const Outcome got = running.wait();
    EXPECT_EQ(got.code, 6);
    EXPECT_EQ(got.json().at("error").at("code"), 6);
  }
}

}  // namespace
}  // namespace pare::test
