#include "pare/tokenizer/pre_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "pare/base/error.h"

namespace pare::tok {
namespace {

constexpr std::string_view kGpt2 = "gpt2", kLlama3 = "llama3", kQwen2 = "qwen2";  // stand for the classic patterns

constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
                                     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
                                     R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kKana = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr std::string_view kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kHangul = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
// The letters of scripts with case, as DeepSeek LLM lists them.
constexpr std::string_view kCased =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1})"
    R"(\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5})"
    R"(\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A})"
    R"(\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B})"
    R"(\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})"
    R"(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134})"
    R"(\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787})"
    R"(\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A})"
    R"(\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)";
constexpr std::string_view kDeepseekMarks =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";

struct Row {
  std::string_view names;  // the first is the one that is written
  std::string_view splits[6];
  bool ignore_merges = false, adds_bos = false;
};

constexpr Row kRows[] = {
    {"llama-bpe llama3 llama-v3 falcon3 lfm2", {kLlama3}, true, true},
    {"dbrx smaug-bpe chatglm-bpe glm4", {kLlama3}},
    {"qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez grok-2 kormo", {kQwen2}},
    {"qwen35", {kQwen35}},
    {"gpt-2 phi-2 mpt olmo jais trillion granite-docling roberta-bpe gigachat mellum a.x-4.0 jina-es jina-de "
     "jina-v1-en "
     "jina-v2-es jina-v2-de jina-v2-code",
     {kGpt2}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b", {R"(\p{N})", kGpt2}},
    {"falcon", {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2, "[0-9][0-9][0-9]"}},
    {"default", {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
    {"deepseek-llm", {R"([\r\n])", kCased, kDeepseekMarks, R"(\s+$)", kHangul, R"(\p{N}+)"}},
    {"deepseek-coder", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHangul, R"(\p{N})"}},
    {"deepseek-v3 hunyuan-dense", {R"(\p{N}{1,3})", kKana, kDeepseek3}},
    {"tekken pixtral", {kTekken}, true, true},
    {"gpt-4o llama4 minimax-m2", {kGpt4o}},
    {"bloom poro-chat gpt3-finnish", {kBloom}},
    {"viking", {kBloom, R"(\p{N})"}},
};

// Spellings of the same cuts with other steps: Falcon counts digits after the bytes have become letters.
constexpr struct {
  std::string_view spelling, name;
} kOtherSpellings[] = {
    {"punctuation | gpt2 | bytes | \\p{N}+ | [0-9][0-9][0-9]", "falcon"},
};

std::vector<std::string> names_of(const Row& row) {
  std::vector<std::string> names;
  for (size_t at = 0; at < row.names.size();) {
    const size_t end = std::min(row.names.find(' ', at), row.names.size());
    names.emplace_back(row.names.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

std::vector<PretokenizerStep> steps_of(const Row& row) {
  std::vector<PretokenizerStep> steps;
  for (const std::string_view split : row.splits) {
    if (split.empty()) break;
    if (split == kGpt2 || split == kLlama3 || split == kQwen2)
      steps.emplace_back(ClassicSplit{split == kGpt2     ? Classic::gpt2
                                      : split == kLlama3 ? Classic::llama3
                                                         : Classic::qwen2});
    else
      steps.emplace_back(Split{{"", Regex(split)}, Behavior::isolated, false});
  }
  steps.emplace_back(ByteLetters{});
  return steps;
}

// One spelling for patterns that differ only in how a character is written.
std::string plain_ascii(std::string_view pattern) {
  std::string plain;
  for (size_t i = 0; i < pattern.size();) {
    const Char c = char_at(pattern, i);
    if (c.code == '\r' || c.code == '\n')
      plain += c.code == '\r' ? "\\r" : "\\n";
    else if (c.code < 128)
      plain += static_cast<char>(c.code);
    else
      plain += fmt::format("\\x{{{:X}}}", c.code);
    i += c.bytes;
  }
  return plain;
}

struct Spell {
  std::string operator()(const ClassicSplit& s) const {
    return std::string(s.pattern == Classic::gpt2 ? kGpt2 : s.pattern == Classic::llama3 ? kLlama3 : kQwen2);
  }
  std::string operator()(const Split& s) const {
    if (s.behavior != Behavior::isolated || s.invert) return "?";
    return plain_ascii(s.pattern.regex ? s.pattern.regex->pattern() : escape_regex(s.pattern.literal));
  }
  std::string operator()(ByteLetters) const { return "bytes"; }
  std::string operator()(const Digits& s) const { return s.individual ? R"(\p{N})" : R"(\p{N}+)"; }
  std::string operator()(const Punctuation& s) const {
    return s.behavior == Behavior::contiguous ? "punctuation" : "?";
  }
  std::string operator()(SpacePrefix) const { return "?"; }
  std::string operator()(const Metaspace&) const { return "?"; }
  std::string operator()(Whitespace) const { return "?"; }
  std::string operator()(WhitespaceSplit) const { return "?"; }
};

std::string spell(std::span<const PretokenizerStep> steps) {
  std::string all;
  for (const PretokenizerStep& step : steps) all += (all.empty() ? "" : " | ") + std::visit(Spell{}, step);
  return all;
}

}  // namespace

NamedPre pre_from_name(const std::string& name, const std::string& where) {
  std::string known;
  for (const Row& row : kRows) {
    for (const std::string& candidate : names_of(row)) {
      if (candidate == name) return {steps_of(row), row.ignore_merges, row.adds_bos};
      known += (known.empty() ? "" : ", ") + candidate;
    }
  }
  throw Error({.what = fmt::format("the pre-tokenizer \"{}\" is not known", name),
               .where = where + ": tokenizer.ggml.pre",
               .expected = "one of " + known});
}

std::optional<std::string> name_of_pre(const Pretokenizer& pretokenizer, bool ignore_merges) {
  const std::string wanted = spell(pretokenizer.steps());
  for (const auto& other : kOtherSpellings)
    if (other.spelling == wanted) return std::string(other.name);
  for (const Row& row : kRows)
    if ((ignore_merges || !row.ignore_merges) && spell(steps_of(row)) == wanted) return names_of(row)[0];
  return std::nullopt;
}

}  // namespace pare::tok
