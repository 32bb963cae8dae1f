// What `gguf_vocabulary` (tokenizer.h) writes: tokens, types, scores or merges; the special keys follow.
#include <algorithm>
#include <set>

#include "pare/tokenizer/gguf_special_keys.h"
#include "pare/tokenizer/json_fields.h"
#include "pare/tokenizer/model_directory.h"
#include "pare/tokenizer/pre_names.h"
#include "pare/tokenizer/sentencepiece_model.h"
#include "pare/tokenizer/vocabulary_json.h"

namespace pare {
namespace {

using namespace tok;

// Types as GGUF numbers them.
int32_t type_of(Kind kind) {
  switch (kind) {
    case Kind::normal:
      return 1;
    case Kind::unknown:
      return 2;
    case Kind::control:
      return 3;
    case Kind::user_defined:
      return 4;
    case Kind::unused:
      return 5;
    case Kind::byte:
      return 6;
  }
  return 1;
}

// One entry per row of the embedding; those no file speaks of stay padding.
struct Table {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;

  explicit Table(int64_t size) : scores(static_cast<size_t>(size), -10000.0f), types(static_cast<size_t>(size), 5) {
    for (int64_t i = 0; i < size; ++i) tokens.push_back(fmt::format("[PAD{}]", i));
  }
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  void set(int64_t id, std::string token, float score, Kind kind) {
    const auto i = static_cast<size_t>(id);
    tokens[i] = std::move(token), scores[i] = score, types[i] = type_of(kind);
  }
};

bool looks_special(const std::string& token) {
  const auto between = [&](std::string_view left, std::string_view right) {
    return token.size() >= left.size() + right.size() && token.starts_with(left) && token.ends_with(right);
  };
  return token == "<pad>" || token == "<mask>" || token == "<2mass>" || token == "[@BOS@]" || between("<|", "|>") ||
         between("<\uff5c", "\uff5c>") || between("<unused", ">");
}

// Readers look for user-defined tokens in the text as it is, so they must be spelt with spaces.
void set_added(Table& table, const AddedToken& token, float score) {
  if (token.id >= table.size()) return;  // the model has no row for it
  if (token.special || looks_special(token.content)) return table.set(token.id, token.content, score, Kind::control);
  const Replace spaces{{"\u2581", std::nullopt}, " "};
  table.set(token.id, spaces.apply(token.content), score, Kind::user_defined);
}

void check_fits(int64_t id, const Table& table, const std::string& where) {
  if (id >= table.size())
    throw Error({.what = "the vocabulary is larger than the model's embedding",
                 .where = where,
                 .expected = fmt::format("ids below {}", table.size()),
                 .got = fmt::format("token {}", id)});
}

bool puts_space_in_front(const PipelineParts& parts) {
  for (const NormalizerStep& step : parts.normalizer.steps())
    if (std::holds_alternative<Prepend>(step)) return true;
  for (const PretokenizerStep& step : parts.pretokenizer.steps())
    if (const auto* metaspace = std::get_if<Metaspace>(&step)) return metaspace->prepend != Metaspace::Prepend::never;
  return false;
}

void write_spm(const Table& table, Metadata& metadata) {
  metadata.set("tokenizer.ggml.model", "llama");
  metadata.set("tokenizer.ggml.pre", "default");
  metadata.set("tokenizer.ggml.tokens", table.tokens);
  metadata.set("tokenizer.ggml.scores", table.scores);
  metadata.set("tokenizer.ggml.token_type", table.types);
}

// The reference's converter for the Llama family writes this key when the configuration has it; besides it is needed
// wherever no space belongs in front, for readers assume one.
void write_space_prefix(const ModelDirectory& directory, bool prefix, Metadata& metadata) {
  const std::string family = text_or(directory.config, "model_type", "");
  const Json& config = directory.tokenizer_config;
  const bool stated = config.is_object() && config.contains("add_prefix_space") &&
                      config.at("add_prefix_space").is_boolean() && (family == "llama" || family == "mistral");
  if (stated)
    metadata.set("tokenizer.ggml.add_space_prefix", config.at("add_prefix_space").get<bool>());
  else if (!prefix)
    metadata.set("tokenizer.ggml.add_space_prefix", false);
}

Metadata from_sentencepiece(const ModelDirectory& directory, int64_t size) {
  const std::string where = directory.where("tokenizer.model");
  const SentencePieceModel model = SentencePieceModel::read(where);
  if (model.type != SentencePieceModel::Type::bpe)
    throw Error({.what = "only SentencePiece models of type BPE can be written to GGUF",
                 .where = where,
                 .expected = "BPE, as Llama and Mistral ship"});
  Table table(size);
  check_fits(static_cast<int64_t>(model.pieces.size()) - 1, table, where);
  for (size_t i = 0; i < model.pieces.size(); ++i)
    table.set(static_cast<int64_t>(i), model.pieces[i].text, model.pieces[i].score,
              model.pieces[i].kind == Kind::user_defined ? Kind::normal : model.pieces[i].kind);
  for (const AddedToken& token : directory.declared_tokens()) set_added(table, token, -1000.0f);

  Metadata metadata;
  write_spm(table, metadata);
  const Json tokenizer =
      directory.has("tokenizer.json") ? read_tokenizer_json(directory.where("tokenizer.json")).rest : Json();
  add_special_keys(directory, tokenizer, size, metadata);
  write_space_prefix(directory, model.dummy_prefix, metadata);
  return metadata;
}

// The tokens with a role are what the reference calls special here; other added tokens are user-defined.
std::set<std::string> role_tokens(const ModelDirectory& directory) {
  std::set<std::string> tokens;
  for (const char* role : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"})
    tokens.insert(directory.role(role));
  const Json& config = directory.tokenizer_config;
  if (config.is_object() && config.contains("additional_special_tokens"))
    for (const Json& token : config.at("additional_special_tokens")) tokens.insert(token_text(token));
  tokens.erase("");
  return tokens;
}

// Readers join pairs by the score of what they make: minus the rank of the merge that makes it. What no merge makes
// comes after all of them.
std::vector<float> scores_from_merges(const Vocabulary& vocabulary, const Bpe::Merges& merges) {
  std::vector<float> scores(static_cast<size_t>(vocabulary.size()), -static_cast<float>(merges.size()) - 1.0f);
  for (size_t rank = merges.size(); rank-- > 0;)
    if (const auto id = vocabulary.find(merges[rank].first + merges[rank].second))
      scores[static_cast<size_t>(*id)] = -static_cast<float>(rank);
  return scores;
}

Metadata from_spm_json(const ModelDirectory& directory, const PipelineParts& parts, int64_t size) {
  const VocabularyJson json = read_tokenizer_json(parts.where);
  const Vocabulary& vocabulary = *parts.vocabulary;
  const std::vector<float> scores = scores_from_merges(vocabulary, json.merges);
  const std::set<std::string> roles = role_tokens(directory);
  std::set<int32_t> base;
  for (const auto& entry : json.vocabulary) base.insert(entry.second);
  Table table(size);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.has(id)) continue;
    if (base.contains(id)) check_fits(id, table, parts.where);
    if (id >= size) continue;
    const std::string& piece = vocabulary.piece(id);
    Kind kind = base.contains(id) ? Kind::normal : Kind::user_defined;
    if (roles.contains(piece)) kind = Kind::control;
    if (vocabulary.kind(id) == Kind::byte) kind = Kind::byte;
    table.set(id, piece, scores[static_cast<size_t>(id)], kind);
  }
  Metadata metadata;
  write_spm(table, metadata);
  add_special_keys(directory, json.rest, size, metadata);
  write_space_prefix(directory, puts_space_in_front(parts), metadata);
  return metadata;
}

std::string merge_line(const std::pair<std::string, std::string>& merge) {
  const Replace space{{" ", std::nullopt}, "\u0120"};
  return space.apply(merge.first) + " " + space.apply(merge.second);
}

std::string pre_name(const PipelineParts& parts, bool roberta) {
  const bool harmless = parts.bpe.options().ignore_merges || parts.bpe.merges_reach_every_token();
  auto name = name_of_pre(parts.pretokenizer, harmless);
  if (name == "gpt-2" && roberta) name = "roberta-bpe";
  if (name) return *name;
  throw Error({.what = "readers of GGUF know no name for the way this tokenizer cuts its text",
               .where = parts.where + ": pre_tokenizer",
               .remedy = "write another format (hf-gptq), or give the model a known pre-tokenizer"});
}

Metadata from_byte_level(const ModelDirectory& directory, const PipelineParts& parts, const Bpe::Merges& merges,
                         const Json& tokenizer, int64_t size) {
  const Vocabulary& vocabulary = *parts.vocabulary;
  Table table(size);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.has(id)) continue;
    if (vocabulary.kind(id) == Kind::normal) check_fits(id, table, parts.where);
    if (id < size) table.set(id, vocabulary.piece(id), 0.0f, Kind::normal);
  }
  for (const AddedToken& token : parts.added) set_added(table, token, 0.0f);
  std::vector<std::string> lines;
  lines.reserve(merges.size());
  for (const auto& merge : merges) lines.push_back(merge_line(merge));
  const bool roberta = tokenizer.is_object() && tokenizer.contains("post_processor") &&
                       text_or(tokenizer.at("post_processor"), "type", "") == "RobertaProcessing";

  Metadata metadata;
  metadata.set("tokenizer.ggml.model", "gpt2");
  metadata.set("tokenizer.ggml.pre", pre_name(parts, roberta));
  metadata.set("tokenizer.ggml.tokens", std::move(table.tokens));
  metadata.set("tokenizer.ggml.token_type", std::move(table.types));
  metadata.set("tokenizer.ggml.merges", std::move(lines));
  add_special_keys(directory, tokenizer, size, metadata);
  return metadata;
}

}  // namespace

Metadata gguf_vocabulary(const std::filesystem::path& path, int64_t vocabulary_size) {
  const auto directory = ModelDirectory::open(path);
  if (vocabulary_size <= 0 || vocabulary_size > Vocabulary::kMaxSize)
    throw Error({.what = "the model's vocabulary size is out of range", .where = path.string()});
  if (directory.has("tokenizer.model") && !is_tiktoken(path / "tokenizer.model"))
    return from_sentencepiece(directory, vocabulary_size);
  if (directory.has("tokenizer.json")) {
    const PipelineParts parts = pipeline_from_json(directory);
    if (!parts.pretokenizer.letters_last() && parts.bpe.options().byte_fallback)
      return from_spm_json(directory, parts, vocabulary_size);
    const VocabularyJson json = read_tokenizer_json(parts.where);
    return from_byte_level(directory, parts, json.merges, json.rest, vocabulary_size);
  }
  if (directory.has("vocab.json") && directory.has("merges.txt"))
    return from_byte_level(directory, pipeline_from_vocab_and_merges(directory), read_merges_text(path / "merges.txt"),
                           Json(), vocabulary_size);
  throw Error({.what = "no tokenizer that can be written to GGUF",
               .where = path.string(),
               .expected = "tokenizer.json, a SentencePiece tokenizer.model, or vocab.json with merges.txt",
               .remedy = "fetch the tokenizer files of the model into this directory"});
}

}  // namespace pare
