#include "pare/tokenizer/hf_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/tokenizer/pre_names.h"

namespace pare {
namespace {

using namespace tok;

// Token types as GGUF numbers them; SentencePiece has the same.
enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

std::string dumped(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
}

// ---- protobuf, as much of it as a SentencePiece model needs

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7f) | 0x80);
  out += static_cast<char>(value);
}
void put_number(std::string& out, int field, int64_t value) {
  put_varint(out, static_cast<uint64_t>(field) << 3);
  put_varint(out, static_cast<uint64_t>(value));  // a negative one takes ten bytes
}
void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}
void put_float(std::string& out, int field, float value) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | 5);
  char raw[4];
  std::memcpy(raw, &value, 4);
  out.append(raw, 4);
}

// ---- the vocabulary

class HfFiles {
 public:
  HfFiles(const Metadata& metadata, const std::string& where) : meta_(metadata), where_(where) {
    const auto* tokens = meta_.array<std::string>("tokenizer.ggml.tokens");
    if (!tokens || tokens->empty()) refuse("the file has no vocabulary", "tokenizer.ggml.tokens");
    tokens_ = *tokens;
    if (const auto* types = meta_.array<int32_t>("tokenizer.ggml.token_type")) types_ = *types;
    types_.resize(tokens_.size(), kNormal);
  }

  std::vector<std::pair<std::string, std::string>> make() const {
    const std::string kind = meta_.text("tokenizer.ggml.model").value_or("");
    if (kind == "llama")
      return {{"tokenizer.model", sentencepiece()}, {"tokenizer_config.json", config("LlamaTokenizer")}};
    if (kind == "gpt2")
      return {{"tokenizer.json", byte_level()}, {"tokenizer_config.json", config("PreTrainedTokenizerFast")}};
    refuse(fmt::format("a vocabulary of kind \"{}\" cannot be written as Hugging Face files", kind),
           "tokenizer.ggml.model");
  }

 private:
  std::string sentencepiece() const {
    const auto* scores = meta_.array<float>("tokenizer.ggml.scores");
    if (!scores || scores->size() != tokens_.size())
      refuse("scores are missing or not as many as the tokens", "tokenizer.ggml.scores");
    std::string out;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      std::string piece;
      put_bytes(piece, 1, tokens_[i]);
      put_float(piece, 2, (*scores)[i]);
      if (types_[i] != kNormal) put_number(piece, 3, types_[i]);
      put_bytes(out, 1, piece);
    }
    std::string trainer, normalizer;
    put_number(trainer, 3, 2);  // BPE
    put_number(trainer, 4, std::ssize(tokens_));
    put_number(trainer, 35, std::find(types_.begin(), types_.end(), kByte) != types_.end());
    put_number(trainer, 40, id("unknown_token_id").value_or(0));
    put_number(trainer, 41, id("bos_token_id").value_or(-1));
    put_number(trainer, 42, id("eos_token_id").value_or(-1));
    put_number(trainer, 43, id("padding_token_id").value_or(-1));
    put_bytes(normalizer, 1, "identity");
    put_number(normalizer, 3, meta_.boolean("tokenizer.ggml.add_space_prefix").value_or(true));
    put_number(normalizer, 4, 0);
    put_number(normalizer, 5, 1);
    put_bytes(out, 2, trainer);
    put_bytes(out, 3, normalizer);
    return out;
  }

  std::string byte_level() const {
    Json vocabulary = Json::object(), added = Json::array(), merges = Json::array();
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] == kUnused) continue;
      if (types_[i] == kControl || types_[i] == kUserDefined || types_[i] == kUnknown)
        added.push_back({{"id", i},
                         {"content", tokens_[i]},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", false},
                         {"special", types_[i] != kUserDefined}});
      else
        vocabulary.push_back({tokens_[i], i});
    }
    const auto* lines = meta_.array<std::string>("tokenizer.ggml.merges");
    if (!lines) refuse("merges are missing", "tokenizer.ggml.merges");
    for (const std::string& line : *lines) merges.push_back(line);
    const NamedPre pre = pre_from_name(meta_.text("tokenizer.ggml.pre").value_or("default"), where_);
    const Json letters = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
    return dumped({{"version", "1.0"},
                   {"truncation", nullptr},
                   {"padding", nullptr},
                   {"added_tokens", added},
                   {"normalizer", nullptr},
                   {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", pretokenizers(pre, letters)}}},
                   {"post_processor", post_processor(pre.adds_bos)},
                   {"decoder", letters},
                   {"model",
                    {{"type", "BPE"},
                     {"dropout", nullptr},
                     {"unk_token", nullptr},
                     {"continuing_subword_prefix", nullptr},
                     {"end_of_word_suffix", nullptr},
                     {"fuse_unk", false},
                     {"byte_fallback", false},
                     {"ignore_merges", pre.ignore_merges},
                     {"vocab", vocabulary},
                     {"merges", merges}}}},
                  1);
  }
  static Json pretokenizers(const NamedPre& pre, const Json& letters) {
    Json out = Json::array();
    for (const PretokenizerStep& step : pre.steps) {
      std::string pattern;
      if (const auto* classic = std::get_if<ClassicSplit>(&step))
        pattern = classic_regex(classic->pattern);
      else if (const auto* split = std::get_if<Split>(&step); split && split->pattern.regex)
        pattern = split->pattern.regex->pattern();
      if (!pattern.empty())
        out.push_back(
            {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
    }
    out.push_back(letters);
    return out;
  }
  // [bos] text [eos]
  Json post_processor(bool adds_bos) const {
    Json single = Json::array(), special = Json::object();
    const auto add = [&](std::optional<int64_t> number) {
      const std::string& token = tokens_[static_cast<size_t>(*number)];
      single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
      special[token] = {{"id", token}, {"ids", {*number}}, {"tokens", {token}}};
    };
    const auto bos = id("bos_token_id"), eos = id("eos_token_id");
    if (bos && meta_.boolean("tokenizer.ggml.add_bos_token").value_or(adds_bos)) add(bos);
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    if (eos && meta_.boolean("tokenizer.ggml.add_eos_token").value_or(false)) add(eos);
    if (special.empty()) return nullptr;
    Json pair = single;
    pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
  }

  std::string config(const char* tokenizer_class) const {
    Json out = {{"tokenizer_class", tokenizer_class}, {"clean_up_tokenization_spaces", false}};
    constexpr std::pair<const char*, const char*> kRoles[] = {
        {"bos_token", "bos_token_id"},       {"eos_token", "eos_token_id"},     {"unk_token", "unknown_token_id"},
        {"sep_token", "seperator_token_id"}, {"pad_token", "padding_token_id"}, {"mask_token", "mask_token_id"}};
    for (const auto& [role, key] : kRoles)
      if (const auto number = id(key)) out[role] = tokens_[static_cast<size_t>(*number)];
    for (const char* flag : {"add_bos_token", "add_eos_token"})
      if (const auto value = meta_.boolean(std::string("tokenizer.ggml.") + flag)) out[flag] = *value;
    if (const auto prefix = meta_.boolean("tokenizer.ggml.add_space_prefix")) out["add_prefix_space"] = *prefix;
    if (const auto text = meta_.text("tokenizer.chat_template")) out["chat_template"] = *text;
    return dumped(out, 2);
  }

  std::optional<int64_t> id(const char* key) const {
    const auto number = meta_.integer(std::string("tokenizer.ggml.") + key);
    if (!number || *number < 0 || *number >= std::ssize(tokens_)) return std::nullopt;
    return number;
  }
  [[noreturn]] void refuse(std::string what, const std::string& key) const {
    throw Error({.what = std::move(what),
                 .where = fmt::format("{}: {}", where_, key),
                 .remedy = "convert the original model instead"});
  }

  const Metadata& meta_;
  const std::string& where_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> types_;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> hf_tokenizer_files(const Metadata& metadata,
                                                                    const std::string& where) {
  return HfFiles(metadata, where).make();
}

}  // namespace pare
