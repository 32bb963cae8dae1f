// The vocabulary inside a GGUF file (keys tokenizer.ggml.*, formats.md §3.8), encoded as llama.cpp does.
#include "pare/tokenizer/gguf_pipeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "pare/base/error.h"
#include "pare/tokenizer/pre_names.h"
#include "pare/tokenizer/spm_steps.h"
#include "pare/tokenizer/vocabulary_json.h"

namespace pare::tok {
namespace {

class GgufVocabulary {
 public:
  GgufVocabulary(const Metadata& metadata, const std::string& where) : meta_(metadata), where_(where) {
    read_tokens();
    read_special_ids();
  }

  PipelineParts spm() {
    const auto* scores = meta_.array<float>("tokenizer.ggml.scores");
    if (!scores || static_cast<int64_t>(scores->size()) != vocabulary_->size())
      refuse("scores are missing or not as many as the tokens", "tokenizer.ggml.scores");
    BpeOptions options{.byte_fallback = true, .fuse_unknown = true};
    options.unknown = id("unknown_token_id").value_or(0);
    SpmSteps steps = spm_steps(flag("add_space_prefix", true), true);
    return finish(Bpe::from_scores(vocabulary_, *scores, options), std::move(steps.normalizer),
                  std::move(steps.pretokenizer), std::move(steps.decoder), true);
  }

  PipelineParts byte_level() {
    NamedPre pre = pre_from_name(meta_.text("tokenizer.ggml.pre").value_or("default"), where_);
    const auto* lines = meta_.array<std::string>("tokenizer.ggml.merges");
    if (!lines) refuse("merges are missing", "tokenizer.ggml.merges");
    Bpe::Merges merges;
    merges.reserve(lines->size());
    for (const std::string& line : *lines) merges.push_back(split_merge(line, where_));
    const BpeOptions options{.byte_letters = true, .ignore_merges = pre.ignore_merges};
    return finish(Bpe::from_merges(vocabulary_, merges, options, where_), {}, Pretokenizer(std::move(pre.steps)),
                  Decoder({FromByteLetters{}}), pre.adds_bos);
  }

 private:
  [[noreturn]] void refuse(const std::string& what, const std::string& key) const {
    throw Error({.what = what,
                 .where = fmt::format("{}: {}", where_, key),
                 .remedy = "the file is damaged or was written by a faulty tool; convert the model again"});
  }

  void read_tokens() {
    const auto* pieces = meta_.array<std::string>("tokenizer.ggml.tokens");
    if (!pieces || pieces->empty()) refuse("the vocabulary is missing", "tokenizer.ggml.tokens");
    if (static_cast<int64_t>(pieces->size()) > Vocabulary::kMaxSize)
      refuse("the vocabulary is too large", "tokenizer.ggml.tokens");
    const auto* types = meta_.array<int32_t>("tokenizer.ggml.token_type");
    if (types && types->size() != pieces->size())
      refuse("there are not as many token types as tokens", "tokenizer.ggml.token_type");
    auto vocabulary = std::make_shared<Vocabulary>();
    for (size_t i = 0; i < pieces->size(); ++i) {
      const auto number = static_cast<int32_t>(i);
      const Kind kind = types ? kind_of((*types)[i]) : Kind::normal;
      vocabulary->set(number, (*pieces)[i], kind, where_);
      if (kind == Kind::control || kind == Kind::unknown || kind == Kind::user_defined)
        added_.push_back({.id = number,
                          .content = vocabulary->piece(number),
                          .rstrip = swallows_space(vocabulary->piece(number)),
                          .normalized = false,
                          .special = kind != Kind::user_defined});
    }
    vocabulary->finish();
    vocabulary_ = std::move(vocabulary);
  }
  Kind kind_of(int32_t type) const {
    constexpr Kind kKinds[] = {Kind::normal,       Kind::unknown, Kind::control,
                               Kind::user_defined, Kind::unused,  Kind::byte};
    if (type < 0 || type > 6) refuse(fmt::format("unknown token type {}", type), "tokenizer.ggml.token_type");
    return type == 0 ? Kind::normal : kKinds[type - 1];
  }
  // GGUF has no place for rstrip, which the special tokens of Phi-3 need; readers go by the model's name.
  bool swallows_space(const std::string& piece) const {
    std::string name = lowercase(repair_utf8(meta_.text("general.name").value_or("")));
    if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) return false;
    return piece != "<unk>" && piece != "<s>" && piece != "<|endoftext|>";
  }

  void read_special_ids() {
    special_.bos = id("bos_token_id");
    for (const char* key : {"eos_token_id", "eot_token_id", "eom_token_id"})
      if (const auto number = id(key)) add_eos(*number);
    // Files often name only one of the tokens that end a turn.
    for (const char* piece : {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"})
      if (const auto number = vocabulary_->find(piece); number && vocabulary_->kind(*number) == Kind::control)
        add_eos(*number);
  }
  void add_eos(int32_t number) {
    if (std::find(special_.eos.begin(), special_.eos.end(), number) == special_.eos.end())
      special_.eos.push_back(number);
  }

  std::optional<int32_t> id(const char* key) const {
    const auto number = meta_.integer(std::string("tokenizer.ggml.") + key);
    if (!number || *number == UINT32_MAX) return std::nullopt;
    if (*number < 0 || *number >= vocabulary_->size())
      refuse(fmt::format("{} is no token of the vocabulary", *number), std::string("tokenizer.ggml.") + key);
    return static_cast<int32_t>(*number);
  }
  bool flag(const char* key, bool otherwise) const {
    return meta_.boolean(std::string("tokenizer.ggml.") + key).value_or(otherwise);
  }

  PipelineParts finish(Bpe bpe, Normalizer normalizer, Pretokenizer pretokenizer, Decoder decoder, bool adds_bos) {
    PipelineParts parts{.vocabulary = vocabulary_,
                        .bpe = std::move(bpe),
                        .normalizer = std::move(normalizer),
                        .pretokenizer = std::move(pretokenizer),
                        .decoder = std::move(decoder),
                        .added = std::move(added_),
                        .prefix = {},
                        .suffix = {},
                        .special = special_,
                        .where = where_};
    if (flag("add_bos_token", adds_bos) && special_.bos) parts.prefix = {*special_.bos};
    if (const auto eos = id("eos_token_id"); eos && flag("add_eos_token", false)) parts.suffix = {*eos};
    return parts;
  }

  const Metadata& meta_;
  const std::string& where_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<AddedToken> added_;
  SpecialIds special_;
};

}  // namespace

PipelineParts pipeline_from_metadata(const Metadata& metadata, const std::string& where) {
  const std::string model = metadata.text("tokenizer.ggml.model").value_or("");
  if (model == "llama") return GgufVocabulary(metadata, where).spm();
  if (model == "gpt2") return GgufVocabulary(metadata, where).byte_level();
  throw Error({.what = model.empty() ? "the file has no vocabulary"
                                     : fmt::format("a vocabulary of kind \"{}\" is not supported", model),
               .where = where + ": tokenizer.ggml.model",
               .expected = "llama (SentencePiece BPE) or gpt2 (byte-level BPE)"});
}

}  // namespace pare::tok
