#include "pare/tokenizer/normalizer.h"

#include "pare/base/utf8.h"
#include "pare/tokenizer/json_fields.h"

namespace pare::tok {
namespace {

std::string strip(std::string_view text, const StripSpace& sides) {
  while (sides.left && !text.empty() && is_space(char_at(text, 0).code)) text.remove_prefix(char_at(text, 0).bytes);
  while (sides.right && !text.empty() && is_space(char_before(text, text.size()).code))
    text.remove_suffix(char_before(text, text.size()).bytes);
  return std::string(text);
}

std::string strip_accents(std::string_view text) {
  std::string bare;
  for (size_t i = 0; i < text.size();) {
    const Char c = char_at(text, i);
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c.code));
    if (category < UTF8PROC_CATEGORY_MN || category > UTF8PROC_CATEGORY_ME) bare += text.substr(i, c.bytes);
    i += c.bytes;
  }
  return bare;
}

struct Apply {
  std::string_view text;
  std::string operator()(const Prepend& step) const {
    return text.empty() ? std::string() : step.text + std::string(text);
  }
  std::string operator()(const Replace& step) const { return step.apply(text); }
  std::string operator()(Form form) const { return normalize(text, form); }
  std::string operator()(Lowercase) const { return lowercase(text); }
  std::string operator()(StripAccents) const { return strip_accents(text); }
  std::string operator()(const StripSpace& sides) const { return strip(text, sides); }
};

void parse_into(const Json& json, const std::string& where, std::vector<NormalizerStep>& steps, int depth) {
  if (json.is_null()) return;
  if (depth > 8) bad_field(where, "normalizers are nested too deeply", "at most 8 levels");
  const std::string type = text_field(json, "type", where);
  if (type == "Sequence") {
    for (const Json& step : array_field(json, "normalizers", where)) parse_into(step, where, steps, depth + 1);
  } else if (type == "Prepend") {
    steps.emplace_back(Prepend{text_field(json, "prepend", where)});
  } else if (type == "Replace") {
    steps.emplace_back(
        Replace{parse_pattern(field(json, "pattern", where), where), text_field(json, "content", where)});
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    steps.emplace_back(type == "NFC"    ? Form::nfc
                       : type == "NFD"  ? Form::nfd
                       : type == "NFKC" ? Form::nfkc
                                        : Form::nfkd);
  } else if (type == "Lowercase") {
    steps.emplace_back(Lowercase{});
  } else if (type == "StripAccents") {
    steps.emplace_back(StripAccents{});
  } else if (type == "Strip") {
    steps.emplace_back(StripSpace{flag_or(json, "strip_left", true), flag_or(json, "strip_right", true)});
  } else {
    throw Error({.what = fmt::format("the normalizer \"{}\" is not supported", type),
                 .where = where,
                 .expected = "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents or Strip"});
  }
}

}  // namespace

void Pattern::for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const {
  if (regex) return regex->for_each_match(text, found);
  if (literal.empty()) return;
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size()))
    found(at, at + literal.size());
}

Pattern parse_pattern(const Json& json, const std::string& where) {
  if (json.is_string()) return {json.get<std::string>(), std::nullopt};
  if (json.is_object() && json.contains("String")) return {text_field(json, "String", where), std::nullopt};
  return {"", Regex(text_field(json, "Regex", where))};
}

std::string Replace::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t done = 0;
  pattern.for_each_match(text, [&](size_t begin, size_t end) {
    out += text.substr(done, begin - done);
    out += content;
    done = end;
  });
  out += text.substr(done);
  return out;
}

Normalizer Normalizer::parse(const Json& json, const std::string& where) {
  Normalizer normalizer;
  parse_into(json, where + ": normalizer", normalizer.steps_, 0);
  return normalizer;
}

std::string Normalizer::apply(std::string_view text) const {
  std::string now(text);
  for (const NormalizerStep& step : steps_) now = std::visit(Apply{now}, step);
  return now;
}

}  // namespace pare::tok
