#include "pare/tokenizer/decoder.h"

#include "pare/base/utf8.h"
#include "pare/tokenizer/json_fields.h"

namespace pare::tok {
namespace {

using Tokens = std::vector<std::string>;

std::string join(const Tokens& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

// A token with a character outside the alphabet stands for its own bytes.
std::string letters_to_bytes(const std::string& token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const Char c = char_at(token, i);
    const int byte = letter_to_byte(c.code);
    if (byte < 0) return token;
    bytes += static_cast<char>(byte);
    i += c.bytes;
  }
  return bytes;
}

std::string strip(std::string_view text, const StripEach& step) {
  const std::string& c = step.character;
  for (int64_t n = 0; n < step.start && text.starts_with(c); ++n) text.remove_prefix(c.size());
  for (int64_t n = 0; n < step.stop && text.ends_with(c); ++n) text.remove_suffix(c.size());
  return std::string(text);
}

std::string text_of_bytes(const std::string& bytes) {
  if (is_utf8(bytes)) return bytes;
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) text += kReplacement;
  return text;
}

struct Step {
  Tokens& tokens;

  void operator()(const ReplaceEach& step) const {
    for (std::string& token : tokens) token = step.replace.apply(token);
  }
  void operator()(JoinByteTokens) const {
    Tokens joined;
    std::string bytes;
    const auto flush = [&] {
      if (!bytes.empty()) joined.push_back(text_of_bytes(bytes));
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const int byte = byte_of_piece(token); byte >= 0) {
        bytes += static_cast<char>(byte);
      } else {
        flush();
        joined.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(joined);
  }
  void operator()(Fuse) const { tokens = {join(tokens)}; }
  void operator()(const StripEach& step) const {
    for (std::string& token : tokens) token = strip(token, step);
  }
  void operator()(FromByteLetters) const {
    std::string bytes;
    for (const std::string& token : tokens) bytes += letters_to_bytes(token);
    tokens = {repair_utf8(bytes)};
  }
  void operator()(const FromMetaspace& step) const {
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = Replace{{step.replacement, std::nullopt}, i == 0 && step.drop_first ? "" : " "}.apply(tokens[i]);
  }
};

int64_t count_field(const Json& json, const char* key, const std::string& where) {
  return id_from(field(json, key, where), where);
}

void parse_into(const Json& json, const std::string& where, std::vector<DecoderStep>& steps, int depth) {
  if (depth > 8) bad_field(where, "decoders are nested too deeply", "at most 8 levels");
  const std::string type = text_field(json, "type", where);
  if (type == "Sequence") {
    for (const Json& step : array_field(json, "decoders", where)) parse_into(step, where, steps, depth + 1);
  } else if (type == "Replace") {
    steps.emplace_back(
        ReplaceEach{{parse_pattern(field(json, "pattern", where), where), text_field(json, "content", where)}});
  } else if (type == "ByteFallback") {
    steps.emplace_back(JoinByteTokens{});
  } else if (type == "Fuse") {
    steps.emplace_back(Fuse{});
  } else if (type == "Strip") {
    const std::string character = text_field(json, "content", where);
    if (character.empty()) bad_field(where, "the Strip decoder has nothing to strip", "one character");
    steps.emplace_back(StripEach{character, count_field(json, "start", where), count_field(json, "stop", where)});
  } else if (type == "ByteLevel") {
    steps.emplace_back(FromByteLetters{});
  } else if (type == "Metaspace") {
    const std::string scheme =
        text_or(json, "prepend_scheme", flag_or(json, "add_prefix_space", true) ? "always" : "never");
    steps.emplace_back(FromMetaspace{text_or(json, "replacement", "\u2581"), scheme != "never"});
  } else {
    throw Error({.what = fmt::format("the decoder \"{}\" is not supported", type),
                 .where = where,
                 .expected = "Sequence, Replace, ByteFallback, Fuse, Strip, ByteLevel or Metaspace"});
  }
}

}  // namespace

int byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(piece[3]), low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

Decoder Decoder::parse(const Json& json, const std::string& where) {
  if (json.is_null()) return {};
  std::vector<DecoderStep> steps;
  parse_into(json, where + ": decoder", steps, 0);
  return Decoder(std::move(steps));
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  if (!exists_) {
    std::string text;
    for (size_t i = 0; i < tokens.size(); ++i) text += (i ? " " : "") + tokens[i];
    return text;
  }
  for (const DecoderStep& step : steps_) std::visit(Step{tokens}, step);
  return join(tokens);
}

bool Decoder::joins_bytes() const {
  for (const DecoderStep& step : steps_)
    if (std::holds_alternative<JoinByteTokens>(step)) return true;
  return false;
}

}  // namespace pare::tok
