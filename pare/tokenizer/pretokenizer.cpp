#include "pare/tokenizer/pretokenizer.h"

#include "pare/tokenizer/json_fields.h"

namespace pare::tok {
namespace {

struct Range {
  size_t begin, end;
  bool match;
};

// Cuts a text at the matches that are reported to it from left to right.
class Cutter {
 public:
  Cutter(std::string_view text, bool invert) : text_(text), invert_(invert) {}

  void match(size_t begin, size_t end) {
    if (begin > done_) ranges_.push_back({done_, begin, invert_});
    ranges_.push_back({begin, end, !invert_});
    done_ = end;
  }
  void emit(Behavior behavior, std::vector<std::string_view>& out) {
    if (done_ < text_.size()) ranges_.push_back({done_, text_.size(), invert_});
    switch (behavior) {
      case Behavior::removed:
        return removed(out);
      case Behavior::isolated:
        return isolated(out);
      case Behavior::contiguous:
        return contiguous(out);
      case Behavior::merged_with_previous:
        return with_previous(out);
      case Behavior::merged_with_next:
        return with_next(out);
    }
  }

 private:
  void put(size_t begin, size_t end, std::vector<std::string_view>& out) const {
    out.push_back(text_.substr(begin, end - begin));
  }
  void removed(std::vector<std::string_view>& out) const {
    for (const Range& r : ranges_)
      if (!r.match) put(r.begin, r.end, out);
  }
  void isolated(std::vector<std::string_view>& out) const {
    for (const Range& r : ranges_) put(r.begin, r.end, out);
  }
  void contiguous(std::vector<std::string_view>& out) const {
    for (size_t i = 0; i < ranges_.size();) {
      size_t k = i + 1;
      while (k < ranges_.size() && ranges_[k].match == ranges_[i].match) ++k;
      put(ranges_[i].begin, ranges_[k - 1].end, out);
      i = k;
    }
  }
  // One match joins the gap beside it; of several in a row only the nearest does.
  void with_previous(std::vector<std::string_view>& out) const {
    for (size_t i = 0; i < ranges_.size(); ++i) {
      const bool joins = !ranges_[i].match && i + 1 < ranges_.size() && ranges_[i + 1].match;
      put(ranges_[i].begin, ranges_[joins ? i + 1 : i].end, out);
      i += joins;
    }
  }
  void with_next(std::vector<std::string_view>& out) const {
    for (size_t i = 0; i < ranges_.size(); ++i) {
      const bool joins = ranges_[i].match && i + 1 < ranges_.size() && !ranges_[i + 1].match;
      put(ranges_[i].begin, ranges_[joins ? i + 1 : i].end, out);
      i += joins;
    }
  }

  std::string_view text_;
  bool invert_;
  size_t done_ = 0;
  std::vector<Range> ranges_;
};

template <class Test>
void cut_characters(std::string_view text, Test&& test, Behavior behavior, std::vector<std::string_view>& out) {
  Cutter cutter(text, false);
  for (size_t i = 0; i < text.size();) {
    const Char c = char_at(text, i);
    if (test(c.code)) cutter.match(i, i + c.bytes);
    i += c.bytes;
  }
  cutter.emit(behavior, out);
}

// Runs of equal kind, without those of kind 0.
template <class Kind>
void cut_runs(std::string_view text, Kind&& kind, std::vector<std::string_view>& out) {
  for (size_t i = 0; i < text.size();) {
    const Char c = char_at(text, i);
    const int wanted = kind(c.code);
    size_t end = i + c.bytes;
    while (end < text.size() && kind(char_at(text, end).code) == wanted) end += char_at(text, end).bytes;
    if (wanted != 0) out.push_back(text.substr(i, end - i));
    i = end;
  }
}

std::string metaspace_spelling(std::string_view text, const Metaspace& step, bool begins_input) {
  std::string spelt;
  const auto rest = [&] {
    for (const char c : text)
      if (c == ' ')
        spelt += step.replacement;
      else
        spelt += c;
  };
  rest();
  const bool wanted =
      step.prepend == Metaspace::Prepend::always || (step.prepend == Metaspace::Prepend::first && begins_input);
  if (wanted && !spelt.starts_with(step.replacement)) spelt.insert(0, step.replacement);
  return spelt;
}

struct Run {
  std::string_view text;
  bool begins_input;
  Pieces& kept;
  std::vector<std::string_view>& out;

  void operator()(const ClassicSplit& step) const { split_classic(step.pattern, text, out); }
  void operator()(const Split& step) const {
    Cutter cutter(text, step.invert);
    step.pattern.for_each_match(text, [&](size_t begin, size_t end) { cutter.match(begin, end); });
    cutter.emit(step.behavior, out);
  }
  void operator()(SpacePrefix) const {
    if (is_space(char_at(text, 0).code)) return out.push_back(text);
    std::string prefixed(1, ' ');
    out.push_back(kept.keep(prefixed.append(text)));
  }
  void operator()(ByteLetters) const { out.push_back(kept.keep(to_byte_letters(text))); }
  void operator()(const Digits& step) const {
    const auto digit = [](uint32_t c) { return class_of(c) == Class::number; };
    cut_characters(text, digit, step.individual ? Behavior::isolated : Behavior::contiguous, out);
  }
  void operator()(const Metaspace& step) const {
    const std::string_view spelt = kept.keep(metaspace_spelling(text, step, begins_input));
    if (!step.split) return out.push_back(spelt);
    Cutter cutter(spelt, false);
    Pattern{step.replacement, std::nullopt}.for_each_match(spelt, [&](size_t b, size_t e) { cutter.match(b, e); });
    cutter.emit(Behavior::merged_with_next, out);
  }
  void operator()(const Punctuation& step) const { cut_characters(text, is_punctuation, step.behavior, out); }
  void operator()(Whitespace) const {
    cut_runs(
        text, [](uint32_t c) { return is_space(c)  ? 0
                                      : is_word(c) ? 1
                                                   : 2; }, out);
  }
  void operator()(WhitespaceSplit) const {
    cut_runs(
        text, [](uint32_t c) { return is_space(c) ? 0 : 1; }, out);
  }
};

Behavior behavior_from(const std::string& name, const std::string& where) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  bad_field(where, fmt::format("unknown split behavior \"{}\"", name),
            "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

void parse_split(const Json& json, const std::string& where, std::vector<PretokenizerStep>& steps) {
  Split split{parse_pattern(field(json, "pattern", where), where),
              behavior_from(text_field(json, "behavior", where), where), flag_or(json, "invert", false)};
  // The classic patterns match everything, so keeping the matches and isolating them is the same.
  const auto classic = split.pattern.regex ? classic_from_regex(split.pattern.regex->pattern()) : std::nullopt;
  if (classic && (split.invert ? split.behavior == Behavior::removed : split.behavior == Behavior::isolated))
    steps.emplace_back(ClassicSplit{*classic});
  else
    steps.emplace_back(std::move(split));
}

void parse_byte_level(const Json& json, std::vector<PretokenizerStep>& steps) {
  if (flag_or(json, "add_prefix_space", true)) steps.emplace_back(SpacePrefix{});
  if (flag_or(json, "use_regex", true)) steps.emplace_back(ClassicSplit{Classic::gpt2});
  steps.emplace_back(ByteLetters{});
}

Metaspace parse_metaspace(const Json& json, const std::string& where) {
  const std::string scheme =
      text_or(json, "prepend_scheme", flag_or(json, "add_prefix_space", true) ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    bad_field(where, fmt::format("unknown prepend_scheme \"{}\"", scheme), "always, first or never");
  const std::string replacement = text_or(json, "replacement", "\u2581");
  if (replacement.empty()) bad_field(where, "an empty Metaspace replacement", "one character");
  using Prepend = Metaspace::Prepend;
  return {replacement,
          scheme == "always"  ? Prepend::always
          : scheme == "first" ? Prepend::first
                              : Prepend::never,
          flag_or(json, "split", true)};
}

void parse_into(const Json& json, const std::string& where, std::vector<PretokenizerStep>& steps, int depth) {
  if (json.is_null()) return;
  if (depth > 8) bad_field(where, "pre-tokenizers are nested too deeply", "at most 8 levels");
  const std::string type = text_field(json, "type", where);
  if (type == "Sequence") {
    for (const Json& step : array_field(json, "pretokenizers", where)) parse_into(step, where, steps, depth + 1);
  } else if (type == "ByteLevel") {
    parse_byte_level(json, steps);
  } else if (type == "Split") {
    parse_split(json, where, steps);
  } else if (type == "Digits") {
    steps.emplace_back(Digits{flag_or(json, "individual_digits", false)});
  } else if (type == "Metaspace") {
    steps.emplace_back(parse_metaspace(json, where));
  } else if (type == "Punctuation") {
    steps.emplace_back(Punctuation{behavior_from(text_or(json, "behavior", "Isolated"), where)});
  } else if (type == "Whitespace") {
    steps.emplace_back(Whitespace{});
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(WhitespaceSplit{});
  } else {
    throw Error(
        {.what = fmt::format("the pre-tokenizer \"{}\" is not supported", type),
         .where = where,
         .expected = "Sequence, ByteLevel, Split, Digits, Metaspace, Punctuation, Whitespace or WhitespaceSplit"});
  }
}

}  // namespace

Pretokenizer::Pretokenizer(std::vector<PretokenizerStep> steps)
    : steps_(std::move(steps)), letters_last_(!steps_.empty() && std::holds_alternative<ByteLetters>(steps_.back())) {}

Pretokenizer Pretokenizer::parse(const Json& json, const std::string& where) {
  std::vector<PretokenizerStep> steps;
  parse_into(json, where + ": pre_tokenizer", steps, 0);
  return Pretokenizer(std::move(steps));
}

void Pretokenizer::split(std::string_view text, bool begins_input, Pieces& pieces) const {
  pieces.list.clear();
  pieces.rewritten.clear();
  if (text.empty()) return;
  pieces.list.push_back(text);
  std::vector<std::string_view> next;
  for (size_t s = 0; s + (letters_last_ ? 1 : 0) < steps_.size(); ++s) {
    next.clear();
    for (size_t i = 0; i < pieces.list.size(); ++i)
      if (!pieces.list[i].empty()) std::visit(Run{pieces.list[i], begins_input && i == 0, pieces, next}, steps_[s]);
    pieces.list.swap(next);
  }
}

}  // namespace pare::tok
