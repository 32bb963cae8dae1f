#include "pare/cli/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "pare/base/error.h"
#include "pare/report/table.h"

namespace pare::cli {
namespace {

constexpr int64_t kHelpWidth = 100, kNamesWidth = 28;

// ---- names

std::vector<std::string> split_names(const std::string& names) {
  std::vector<std::string> out(1);
  for (const char c : names) {
    if (c == ',') out.emplace_back();
    if (c != ',') out.back() += c;
  }
  return out;
}

bool is_switch(const Option& option) {
  return std::holds_alternative<bool*>(option.target) || std::holds_alternative<std::optional<bool>*>(option.target);
}

// The name to call an option by in messages.
std::string long_name(const Option& option) { return split_names(option.names).back(); }

// "--desc_act" for "--desc-act": the same option.
std::string with_dashes(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

[[noreturn]] void refuse(const std::string& where, const std::string& what, const std::string& expected,
                         const std::string& got, const std::string& remedy) {
  throw Error(
      {.what = what, .where = where, .expected = expected, .got = got, .remedy = remedy, .code = ExitCode::usage});
}

// ---- values

template <class T>
T parse_number(const std::string& where, const std::string& text, const char* kind) {
  T value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || text.empty())
    refuse(where, "the value cannot be read", kind, fmt::format("'{}'", text), "");
  return value;
}

int64_t parse_bytes(const std::string& where, const std::string& text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string suffix = text.substr(digits);
  for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  static const std::map<std::string, int> kPowers = {{"", 0},    {"b", 0},  {"k", 1},   {"kb", 1}, {"kib", 1},
                                                     {"m", 2},   {"mb", 2}, {"mib", 2}, {"g", 3},  {"gb", 3},
                                                     {"gib", 3}, {"t", 4},  {"tb", 4},  {"tib", 4}};
  const auto power = kPowers.find(suffix);
  const char* kind = "a size such as 500M or 8G";
  if (power == kPowers.end()) refuse(where, "the value cannot be read", kind, fmt::format("'{}'", text), "");
  const double value = parse_number<double>(where, text.substr(0, digits), kind) * std::pow(1024.0, power->second);
  if (!(value < 0x1p62)) refuse(where, "the size is too large", kind, text, "");
  return static_cast<int64_t>(value);
}

double as_number(const Target& target) {
  struct Reader {
    double operator()(const int64_t* x) const { return static_cast<double>(*x); }
    double operator()(const double* x) const { return *x; }
    double operator()(const std::optional<int64_t>* x) const { return static_cast<double>(x->value_or(0)); }
    double operator()(const std::optional<double>* x) const { return x->value_or(0); }
    double operator()(const ByteCount* x) const { return static_cast<double>(x->value); }
    double operator()(const std::optional<ByteCount>* x) const {
      return static_cast<double>(x->value_or(ByteCount{}).value);
    }
    double operator()(const void*) const { return 0; }
  };
  return std::visit(Reader{}, target);
}

// Reads one value into the target of an option.
struct Store {
  const std::string& where;
  const std::string& text;

  void operator()(bool* x) const { *x = text == "true"; }
  void operator()(std::optional<bool>* x) const { *x = text == "true"; }
  void operator()(std::string* x) const { *x = text; }
  void operator()(std::optional<std::string>* x) const { *x = text; }
  void operator()(int64_t* x) const { *x = parse_number<int64_t>(where, text, "a whole number"); }
  void operator()(std::optional<int64_t>* x) const { *x = parse_number<int64_t>(where, text, "a whole number"); }
  void operator()(double* x) const { *x = parse_number<double>(where, text, "a number"); }
  void operator()(std::optional<double>* x) const { *x = parse_number<double>(where, text, "a number"); }
  void operator()(ByteCount* x) const { x->value = parse_bytes(where, text); }
  void operator()(std::optional<ByteCount>* x) const { *x = ByteCount{parse_bytes(where, text)}; }
  void operator()(std::vector<std::string>* x) const { x->push_back(text); }
};

void store(const Option& option, const std::string& text) {
  const std::string where = long_name(option);
  if (!option.choices.empty() && std::ranges::find(option.choices, text) == option.choices.end()) {
    const auto meant = closest(text, option.choices);
    refuse(where, "no such choice", fmt::format("{}", fmt::join(option.choices, ", ")), fmt::format("'{}'", text),
           meant ? fmt::format("did you mean '{}'?", *meant) : "");
  }
  std::visit(Store{where, text}, option.target);
  if (option.lowest && !(as_number(option.target) >= *option.lowest))
    refuse(where, "the value is too small", fmt::format("at least {}", *option.lowest), text, "");
}

// ---- the words of the command line, made regular for CLI11

class Regular {
 public:
  explicit Regular(std::vector<const Option*> options) {
    for (const Option* option : options)
      for (const std::string& name : split_names(option->names)) by_name_[name] = option;
  }

  // '_' becomes '-' in names, "--name=value" two words, a switch followed by true or false one.
  std::vector<std::string> words(std::span<const std::string> arguments) const {
    std::vector<std::string> out;
    for (size_t i = 0; i < arguments.size(); ++i) {
      std::string word = arguments[i];
      if (word == "--") {  // what follows are no options
        out.insert(out.end(), arguments.begin() + static_cast<int64_t>(i), arguments.end());
        break;
      }
      const size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
      const std::string name = known_spelling(word.substr(0, equals));
      const auto found = by_name_.find(name);
      if (found == by_name_.end()) {
        out.push_back(std::move(word));
        continue;
      }
      std::optional<std::string> value;
      if (equals != std::string::npos) value = word.substr(equals + 1);
      const bool more = i + 1 < arguments.size();
      if (is_switch(*found->second)) {
        if (!value && more && is_truth(arguments[i + 1])) value = arguments[++i];
        out.push_back(value ? name + "=" + truth(name, *value) : name);
        continue;
      }
      if (!value && more) value = arguments[++i];
      if (!value || (equals == std::string::npos && value->starts_with("--") && is_known(*value)))
        refuse(name, "the option needs a value", found->second->value, value ? *value : "nothing", "");
      out.push_back(name);
      out.push_back(*value);
    }
    return out;
  }
  bool is_known(const std::string& word) const {
    return by_name_.contains(known_spelling(word.substr(0, word.find('='))));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, option] : by_name_)
      if (name.starts_with("--")) out.push_back(name);
    return out;
  }

 private:
  static std::string known_spelling(const std::string& name) {
    return name.starts_with("--") ? with_dashes(name) : name;
  }
  static bool is_truth(const std::string& word) {
    return word == "true" || word == "false" || word == "True" || word == "False";
  }
  static std::string truth(const std::string& name, const std::string& word) {
    if (!is_truth(word)) refuse(name, "this is a switch", "true or false", fmt::format("'{}'", word), "");
    return word == "true" || word == "True" ? "true" : "false";
  }
  std::map<std::string, const Option*> by_name_;
};

[[noreturn]] void refuse_left_over(const std::string& command, const std::string& word,
                                   std::span<const std::string> names) {
  const bool dashed = word.starts_with('-') && word.size() > 1;
  const std::string help = fmt::format("'pare {} --help' lists the options", command);
  if (!dashed) refuse(word, "one argument too many", "", "", "quote texts that contain spaces; " + help);
  const auto meant = closest(with_dashes(word.substr(0, word.find('='))), names);
  refuse(word, "unknown option", "", "", meant ? fmt::format("did you mean {}? {}", *meant, help) : help);
}

int64_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<int64_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int64_t>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = std::exchange(row[0], static_cast<int64_t>(i));
    for (size_t j = 1; j <= b.size(); ++j) {
      const int64_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::optional<std::string> closest(std::string_view word, std::span<const std::string> candidates) {
  std::optional<std::string> best;
  int64_t smallest = std::max<int64_t>(2, static_cast<int64_t>(word.size()) / 3) + 1;
  for (const std::string& candidate : candidates) {
    const bool begins = word.size() >= 5 && candidate.starts_with(word);  // "--proto" for "--protocol"
    const int64_t distance = begins ? 1 : edit_distance(word, candidate);
    if (distance < smallest) best = candidate, smallest = distance;
  }
  return best;
}

Options& Options::add(Option option) {
  lines_.push_back({std::move(option), {}});
  return *this;
}

Options& Options::heading(std::string title) {
  lines_.push_back({std::nullopt, std::move(title)});
  return *this;
}

Options& Options::note(std::string text) {
  notes_.push_back(std::move(text));
  return *this;
}

std::vector<const Option*> Options::all() const {
  std::vector<const Option*> out;
  for (const Line& line : lines_)
    if (line.option) out.push_back(&*line.option);
  return out;
}

std::string Options::help() const {
  std::string out = fmt::format("example: {}\n{}\n\n", usage_.example, usage_.summary);
  for (const Line& line : lines_) {
    if (!line.option) {
      out += line.heading + "\n";
      continue;
    }
    const Option& option = *line.option;
    if (option.help.empty()) continue;
    std::string names = option.names;
    for (size_t at = 0; (at = names.find(',', at)) != std::string::npos; at += 2) names.replace(at, 1, ", ");
    if (!option.value.empty()) names += " " + option.value;
    bool first = true;
    for (const std::string& text : wrapped(option.help, kHelpWidth - kNamesWidth)) {
      const bool alone = first && display_width(names) + 4 > kNamesWidth;
      if (alone) out += "  " + names + "\n";
      out += fmt::format("{:<{}}{}\n", first && !alone ? "  " + names : "", kNamesWidth, text);
      first = false;
    }
  }
  for (const std::string& note : notes_)
    for (const std::string& text : wrapped(note, kHelpWidth)) out += text + "\n";
  return out;
}

void Options::parse(std::span<const std::string> arguments) const {
  const Regular regular(all());
  CLI::App app;
  app.set_help_flag("");
  app.allow_extras();
  std::vector<std::pair<const Option*, CLI::Option*>> parsed;
  for (const Option* option : all()) {
    CLI::Option* added = is_switch(*option) ? app.add_flag(option->names) : app.add_option(option->names);
    added->take_all();
    parsed.emplace_back(option, added);
  }
  std::vector<std::string> words = regular.words(arguments);
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& e) {
    refuse("pare " + usage_.command, e.what(), "", "",
           fmt::format("'pare {} --help' lists the options", usage_.command));
  }
  for (const std::string& word : app.remaining())
    if (word != "--") refuse_left_over(usage_.command, word, regular.names());
  for (const auto& [option, found] : parsed) {
    if (option->required && found->count() == 0)
      refuse("pare " + usage_.command, fmt::format("{} is missing", long_name(*option)), "", "",
             "for example: " + usage_.example);
    for (const std::string& text : found->results()) store(*option, text);
  }
}

}  // namespace pare::cli
