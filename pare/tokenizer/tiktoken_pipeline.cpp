// tokenizer.model in tiktoken's form, as the original Llama 3 repositories ship it:
//   one token per line: its bytes in base64, a space, its rank (which is its id)
// Any two neighbours that are a token together join, the lowest rank first. Special tokens are declared in
// tokenizer_config.json. The split pattern stands in the model's code: this is Llama 3's.
#include <charconv>

#include "pare/base/mapped_file.h"
#include "pare/tokenizer/json_fields.h"
#include "pare/tokenizer/model_directory.h"

namespace pare::tok {
namespace {

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// nullopt when it is not base64.
std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int digit = i + padding >= text.size() ? 0 : base64_digit(text[i]);
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 == 3)
      for (int shift = 16; shift >= 0; shift -= 8) bytes += static_cast<char>(bits >> shift & 0xff);
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

struct Line {
  std::string bytes;
  int32_t rank;
};

std::optional<Line> parse_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  auto bytes = from_base64(line.substr(0, space));
  int32_t rank = -1;
  const auto [end, error] = std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
  if (!bytes || bytes->empty() || error != std::errc() || end != line.data() + line.size() || rank < 0)
    return std::nullopt;
  return Line{std::move(*bytes), rank};
}

}  // namespace

bool is_tiktoken(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 4096));
  const size_t end = text.find('\n');
  return end != std::string_view::npos && parse_line(text.substr(0, end)).has_value();
}

PipelineParts pipeline_from_tiktoken(const ModelDirectory& directory) {
  const std::string where = directory.where("tokenizer.model");
  const std::string text = read_text_file(where, size_t{256} << 20);
  auto vocabulary = std::make_shared<Vocabulary>();
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view row(text.data() + at, end - at);
    at = end + 1;
    ++number;
    if (row.empty()) continue;
    const auto line = parse_line(row);
    if (!line) bad_field(fmt::format("{} line {}", where, number), "not a tiktoken file", "base64, a space, a rank");
    vocabulary->set(line->rank, to_byte_letters(line->bytes), Kind::normal, where);
  }
  std::vector<float> scores;
  for (int64_t id = 0; id < vocabulary->size(); ++id) scores.push_back(-static_cast<float>(id));
  std::vector<AddedToken> added = directory.declared_tokens();
  if (added.empty())
    throw Error({.what = "a tiktoken file needs the special tokens of tokenizer_config.json",
                 .where = where,
                 .remedy = "fetch tokenizer.json or tokenizer_config.json of the model"});
  for (const AddedToken& t : added)
    vocabulary->set(t.id, t.content, t.special ? Kind::control : Kind::user_defined, where);
  vocabulary->finish();
  scores.resize(static_cast<size_t>(vocabulary->size()));

  PipelineParts parts{.vocabulary = vocabulary,
                      .bpe = Bpe::from_scores(vocabulary, scores, {.byte_letters = true, .ignore_merges = true}),
                      .normalizer = {},
                      .pretokenizer = Pretokenizer({ClassicSplit{Classic::llama3}, ByteLetters{}}),
                      .decoder = Decoder({FromByteLetters{}}),
                      .added = std::move(added),
                      .prefix = {},
                      .suffix = {},
                      .special = directory.special_ids(*vocabulary),
                      .where = where};
  if (flag_or(directory.tokenizer_config, "add_bos_token", true) && parts.special.bos)
    parts.prefix = {*parts.special.bos};
  return parts;
}

}  // namespace pare::tok
