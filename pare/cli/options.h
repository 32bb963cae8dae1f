// The options of a command as one table: parsing (through CLI11, hidden in options.cpp) and help both come from it.
// '_' and '-' are interchangeable in names, and `true` or `false` may follow a switch.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pare::cli {

// A size with an optional suffix: 500M, 8G, 1.5GiB (powers of 1024), or plain bytes.
struct ByteCount {
  int64_t value = 0;
};

// Where a value goes. A bool is a switch; an optional<bool> is one that remembers whether it was given; a vector takes
// every occurrence of a repeated option.
using Target = std::variant<bool*, std::optional<bool>*, std::string*, std::optional<std::string>*, int64_t*,
                            std::optional<int64_t>*, double*, std::optional<double>*, ByteCount*,
                            std::optional<ByteCount>*, std::vector<std::string>*>;

struct Option {
  std::string names;                      // "-n,--count"; without a dash ("MODEL") it stands alone, in table order
  std::string value = {};                 // what help calls the value: "N"; empty for switches
  Target target = {};                     // its present content is the default
  std::string help = {};                  // empty: parsed, but not a line of its own in the help
  std::vector<std::string> choices = {};  // the only values; empty: any
  bool required = false;
  std::optional<double> lowest = {};  // of numbers
};

struct Usage {
  std::string command;  // "eval"
  std::string summary;  // one line
  std::string example;  // a whole command line: help starts with it
};

class Options {
 public:
  explicit Options(Usage usage) : usage_(std::move(usage)) {}

  Options& add(Option option);
  Options& heading(std::string title);  // a line of its own in the help
  Options& note(std::string text);      // printed at the end of the help

  const Usage& usage() const { return usage_; }
  std::string help() const;
  // Fills the targets. Throws Error (usage) naming the option, with a suggestion for a misspelt one.
  void parse(std::span<const std::string> arguments) const;

 private:
  struct Line {  // of the help: an option, or a heading when there is no option
    std::optional<Option> option;
    std::string heading;
  };
  std::vector<const Option*> all() const;
  Usage usage_;
  std::vector<Line> lines_;
  std::vector<std::string> notes_;
};

// The candidate most like `word`, or nullopt when none is close enough to be what was meant.
std::optional<std::string> closest(std::string_view word, std::span<const std::string> candidates);

}  // namespace pare::cli
