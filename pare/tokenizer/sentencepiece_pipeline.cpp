// A SentencePiece BPE model as a pipeline. It gives the same ids as SentencePiece for text without special tokens;
// those are recognized in the text as the Hugging Face tokenizer of such a model does it.
#include <algorithm>

#include "pare/tokenizer/json_fields.h"
#include "pare/tokenizer/model_directory.h"
#include "pare/tokenizer/sentencepiece_model.h"
#include "pare/tokenizer/spm_steps.h"

namespace pare::tok {
namespace {

void check_supported(const SentencePieceModel& model, const std::string& where) {
  const auto refuse = [&](const std::string& got) {
    throw Error({.what = "this kind of SentencePiece model is not supported",
                 .where = where,
                 .expected = "a BPE model without normalization, as Llama and Mistral ship",
                 .got = got,
                 .remedy = "save the tokenizer as tokenizer.json"});
  };
  if (model.type != SentencePieceModel::Type::bpe) refuse("a model of another type (unigram, word or character)");
  if (model.has_normalization) refuse(fmt::format("the normalizer \"{}\"", model.normalizer));
  if (model.remove_extra_spaces) refuse("removal of extra spaces");
  if (!model.escape_spaces) refuse("spaces that are not escaped");
  if (std::any_of(model.pieces.begin(), model.pieces.end(), [](const auto& p) { return p.kind == Kind::unused; }))
    refuse("unused pieces");
}

}  // namespace

PipelineParts pipeline_from_sentencepiece(const ModelDirectory& directory) {
  const std::string where = directory.where("tokenizer.model");
  const SentencePieceModel model = SentencePieceModel::read(where);
  check_supported(model, where);

  auto vocabulary = std::make_shared<Vocabulary>();
  std::vector<float> scores;
  std::vector<AddedToken> added;
  for (const auto& piece : model.pieces) {
    const auto id = static_cast<int32_t>(scores.size());
    vocabulary->set(id, piece.text, piece.kind, where);
    scores.push_back(piece.score);
    if (piece.kind == Kind::control || piece.kind == Kind::unknown || piece.kind == Kind::user_defined)
      added.push_back(
          {.id = id, .content = piece.text, .normalized = false, .special = piece.kind != Kind::user_defined});
  }
  for (AddedToken& token : directory.declared_tokens()) {
    std::erase_if(added, [&](const AddedToken& t) { return t.id == token.id; });
    const bool inside = token.id < static_cast<int32_t>(model.pieces.size());
    const Kind kind = inside ? vocabulary->kind(token.id) : token.special ? Kind::control : Kind::user_defined;
    vocabulary->set(token.id, token.content, kind, where);
    added.push_back(std::move(token));
  }
  vocabulary->finish();
  scores.resize(static_cast<size_t>(vocabulary->size()), 0.0f);

  BpeOptions options{.byte_fallback = model.byte_fallback, .fuse_unknown = true};
  if (vocabulary->has(static_cast<int32_t>(model.unk_id))) options.unknown = static_cast<int32_t>(model.unk_id);
  const bool legacy = flag_or(directory.tokenizer_config, "legacy", true);
  SpmSteps steps = spm_steps(model.dummy_prefix, legacy);

  PipelineParts parts{.vocabulary = vocabulary,
                      .bpe = Bpe::from_scores(vocabulary, scores, options),
                      .normalizer = std::move(steps.normalizer),
                      .pretokenizer = std::move(steps.pretokenizer),
                      .decoder = std::move(steps.decoder),
                      .added = std::move(added),
                      .prefix = {},
                      .suffix = {},
                      .special = directory.special_ids(*vocabulary),
                      .where = where};
  const auto role_id = [&](int64_t id) { return vocabulary->has(static_cast<int32_t>(id)); };
  if (!parts.special.bos && role_id(model.bos_id)) parts.special.bos = static_cast<int32_t>(model.bos_id);
  if (parts.special.eos.empty() && role_id(model.eos_id)) parts.special.eos = {static_cast<int32_t>(model.eos_id)};
  if (flag_or(directory.tokenizer_config, "add_bos_token", true) && parts.special.bos)
    parts.prefix = {*parts.special.bos};
  if (flag_or(directory.tokenizer_config, "add_eos_token", false) && !parts.special.eos.empty())
    parts.suffix = {parts.special.eos.back()};
  return parts;
}

}  // namespace pare::tok
