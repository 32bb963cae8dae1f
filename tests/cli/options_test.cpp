#include "pare/cli/options.h"

#include <gmock/gmock.h>

#include "pare/base/error.h"
#include "pare/cli/progress_printer.h"

namespace pare::cli {
namespace {

using testing::HasSubstr;

struct Parsed {
  std::string model, name = "default";
  std::optional<std::string> text;
  int64_t count = 5;
  std::optional<double> level;
  std::optional<ByteCount> ram;
  bool fast = false;
  std::optional<bool> desc_act;
  std::vector<std::string> tensors;
};

Options table(Parsed& p) {
  Options options({.command = "try", .summary = "Tries.", .example = "pare try model"});
  options.add({.names = "MODEL", .target = &p.model, .help = "a model", .required = true})
      .add({.names = "--name", .value = "NAME", .target = &p.name, .help = "a name", .choices = {"default", "other"}})
      .add({.names = "-p,--some-text", .value = "TEXT", .target = &p.text, .help = "a text"})
      .add({.names = "-n,--count", .value = "N", .target = &p.count, .help = "a count", .lowest = 0})
      .add({.names = "--level", .value = "X", .target = &p.level, .help = "a level"})
      .add({.names = "--max-ram", .value = "SIZE", .target = &p.ram, .help = "a size"})
      .add({.names = "--fast", .target = &p.fast, .help = "a switch"})
      .add({.names = "--desc-act", .target = &p.desc_act, .help = "a switch that remembers"})
      .add({.names = "--tensor", .value = "RE=GRID", .target = &p.tensors, .help = "repeated"});
  return options;
}

Parsed parse(std::vector<std::string> arguments) {
  Parsed p;
  table(p).parse(arguments);
  return p;
}

ErrorInfo error_of(std::vector<std::string> arguments) {
  try {
    parse(std::move(arguments));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.info();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(Options, DefaultsStay) {
  const Parsed p = parse({"m"});
  EXPECT_EQ(p.model, "m");
  EXPECT_EQ(p.name, "default");
  EXPECT_EQ(p.count, 5);
  EXPECT_FALSE(p.text || p.level || p.desc_act || p.fast);
}

TEST(Options, ValuesFollowOrAreGlued) {
  for (const auto& words :
       std::vector<std::vector<std::string>>{{"m", "--count", "7"}, {"--count=7", "m"}, {"-n", "7", "m"}, {"-n7", "m"}})
    EXPECT_EQ(parse(words).count, 7) << words[0];
}

TEST(Options, UnderscoresAndDashesAreTheSameInNamesButNotInValues) {
  for (const char* name : {"--some-text", "--some_text"}) {
    EXPECT_EQ(parse({"m", name, "a_b-c"}).text, "a_b-c");
    EXPECT_EQ(parse({"m", std::string(name) + "=--a_b=c"}).text, "--a_b=c");
  }
  EXPECT_EQ(parse({"m", "-p", "--max_rum"}).text, "--max_rum");
  EXPECT_EQ(parse({"my_model-x"}).model, "my_model-x");
}

TEST(Options, AValueMayBeEmptyOrNegative) {
  EXPECT_EQ(parse({"m", "-p", ""}).text, "");
  EXPECT_EQ(parse({"--some-text=", "m"}).text, "");
  EXPECT_EQ(parse({"m", "--level", "-1.5"}).level, -1.5);
  EXPECT_EQ(parse({"--", "-m"}).model, "-m");
}

TEST(Options, TrueOrFalseMayFollowASwitch) {
  EXPECT_EQ(parse({"--desc_act", "true", "m"}).desc_act, true);
  EXPECT_EQ(parse({"--desc-act", "False", "m"}).desc_act, false);
  EXPECT_EQ(parse({"--desc_act=false", "m"}).desc_act, false);
  EXPECT_EQ(parse({"--desc_act", "m"}).desc_act, true);
  EXPECT_TRUE(parse({"--fast", "m"}).fast);
  EXPECT_FALSE(parse({"--fast", "false", "m"}).fast);
  EXPECT_EQ(parse({"m", "-p", "true"}).text, "true");
  EXPECT_THAT(error_of({"m", "--fast=maybe"}).expected, HasSubstr("true or false"));
}

TEST(Options, RepeatedOnesAreCollectedAndTheLastOfOthersHolds) {
  EXPECT_THAT(parse({"--tensor", "a=q4_k", "m", "--tensor", "[b]"}).tensors, testing::ElementsAre("a=q4_k", "[b]"));
  EXPECT_EQ(parse({"m", "-n", "1", "-n", "2"}).count, 2);
}

TEST(Options, Sizes) {
  EXPECT_EQ(parse({"m", "--max-ram", "8G"}).ram->value, int64_t{8} << 30);
  EXPECT_EQ(parse({"m", "--max-ram", "1.5MiB"}).ram->value, 3 << 19);
  EXPECT_EQ(parse({"m", "--max-ram", "4096"}).ram->value, 4096);
  for (const char* bad : {"8X", "G", "1e30", "-1", "999999999T"})
    EXPECT_EQ(error_of({"m", "--max-ram", bad}).where, "--max-ram") << bad;
}

TEST(Options, MistakesAreNamedAndMendingThemIsSuggested) {
  EXPECT_THAT(error_of({"m", "--cuont", "3"}).remedy, HasSubstr("--count"));
  EXPECT_THAT(error_of({"m", "--Desc_act"}).remedy, HasSubstr("--desc-act"));
  EXPECT_THAT(error_of({"m", "--some=3"}).where, HasSubstr("--some"));
  EXPECT_THAT(error_of({"m", "--xyzzy"}).remedy, testing::Not(HasSubstr("mean")));
  EXPECT_THAT(error_of({"m", "n"}).what, HasSubstr("too many"));
  EXPECT_THAT(error_of({}).what, HasSubstr("MODEL is missing"));
  EXPECT_THAT(error_of({"m", "--name", "othre"}).remedy, HasSubstr("'other'"));
  EXPECT_THAT(error_of({"m", "-n", "x"}).got, "'x'");
  EXPECT_THAT(error_of({"m", "-n", "3x"}).expected, HasSubstr("whole number"));
  EXPECT_THAT(error_of({"m", "-n", "99999999999999999999"}).expected, HasSubstr("whole number"));
  EXPECT_THAT(error_of({"m", "-n", "-1"}).expected, HasSubstr("at least 0"));
  EXPECT_THAT(error_of({"m", "--level", "nan?"}).expected, HasSubstr("number"));
  EXPECT_THAT(error_of({"m", "--count"}).what, HasSubstr("needs a value"));
  EXPECT_THAT(error_of({"m", "--some-text", "--fast"}).what, HasSubstr("needs a value"));
}

TEST(Options, HelpStartsWithAnExampleAndFitsTheScreen) {
  Parsed p;
  Options options = table(p);
  options.heading("and more:").add({.names = "--hidden", .target = &p.fast});
  options.add({.names = "--long", .value = "N", .target = &p.count, .help = std::string(150, 'x') + " word"});
  const std::string help = options.help();
  EXPECT_TRUE(help.starts_with("example: pare try model\n")) << help;
  EXPECT_THAT(help, testing::AllOf(HasSubstr("-p, --some-text TEXT"), HasSubstr("and more:")));
  EXPECT_THAT(help, testing::Not(HasSubstr("--hidden")));
}

TEST(Closest, FindsTypingMistakesOnly) {
  const std::vector<std::string> names = {"inspect", "eval", "run", "quantize"};
  EXPECT_EQ(closest("quantise", names), "quantize");
  EXPECT_EQ(closest("inspct", names), "inspect");
  EXPECT_EQ(closest("zzzzzz", names), std::nullopt);
}

TEST(ProgressText, SaysWhatIsKnown) {
  const Progress p{.stage = "quantize", .detail = "blk.3", .done = 3, .total = 12, .error = 0.0123, .bytes = 30000000};
  EXPECT_EQ(progress_text(p, 3), "quantize  3/12  25%  30.0 MB  error 0.0123  10.0 MB/s  9 s left  blk.3");
  EXPECT_EQ(progress_text({.stage = "evaluate", .detail = "", .done = 4, .total = 4, .error = 51.18}, 2),
            "evaluate  4/4  100%  perplexity 51.18  2/s");
  EXPECT_EQ(progress_text({.stage = "verify", .detail = ""}, 0), "verify");
}

}  // namespace
}  // namespace pare::cli
