// vocab.json with merges.txt: the older form of byte-level BPE (GPT-2, OPT, Qwen, RoBERTa). What the files leave out
// the class named in tokenizer_config.json knows.
#include <algorithm>

#include "pare/tokenizer/json_fields.h"
#include "pare/tokenizer/model_directory.h"
#include "pare/tokenizer/vocabulary_json.h"

namespace pare::tok {
namespace {

struct Family {
  std::string_view tokenizer_class;  // without "Fast"
  Classic pattern;
  bool nfc;                        // normalizes to NFC
  std::string_view default_token;  // bos, eos and unk when no file names them
  bool brackets;                   // puts <s> … </s> around every text
};

constexpr Family kFamilies[] = {
    {"GPT2Tokenizer", Classic::gpt2, false, "<|endoftext|>", false},
    {"CodeGenTokenizer", Classic::gpt2, false, "<|endoftext|>", false},
    {"Qwen2Tokenizer", Classic::qwen2, true, "<|endoftext|>", false},
    {"RobertaTokenizer", Classic::gpt2, false, "", true},
};

const Family& family_of(const ModelDirectory& directory) {
  std::string name = text_or(directory.tokenizer_config, "tokenizer_class", "");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  if (name.empty()) {
    const std::string model = text_or(directory.config, "model_type", "gpt2");
    name = model.starts_with("qwen") ? "Qwen2Tokenizer" : model == "roberta" ? "RobertaTokenizer" : "GPT2Tokenizer";
  }
  for (const Family& family : kFamilies)
    if (family.tokenizer_class == name) return family;
  throw Error({.what = fmt::format("the tokenizer class \"{}\" is not known for vocab.json and merges.txt", name),
               .where = directory.where("tokenizer_config.json"),
               .expected = "GPT2Tokenizer, CodeGenTokenizer, Qwen2Tokenizer or RobertaTokenizer",
               .remedy = "save the tokenizer as tokenizer.json"});
}

// The tokens with a role, declared or not; one that the vocabulary lacks gets the next free id.
void add_role_tokens(const ModelDirectory& directory, const Family& family, const Vocabulary& vocabulary,
                     std::vector<AddedToken>& added) {
  int32_t next = static_cast<int32_t>(vocabulary.size());
  for (const AddedToken& t : added) next = std::max(next, t.id + 1);
  for (const char* role :
       {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    std::string content = directory.role(role);
    const bool basic = std::string_view("bos_token eos_token unk_token").find(role) != std::string_view::npos;
    const bool silent = !directory.tokenizer_config.is_object() || !directory.tokenizer_config.contains(role);
    if (content.empty() && basic && silent) content = family.default_token;
    const bool known = std::any_of(added.begin(), added.end(), [&](const auto& t) { return t.content == content; });
    if (content.empty() || known) continue;
    const int32_t id = vocabulary.find(content).value_or(next);
    if (id == next) ++next;
    added.push_back({.id = id, .content = content, .normalized = false, .special = true});
  }
}

}  // namespace

PipelineParts pipeline_from_vocab_and_merges(const ModelDirectory& directory) {
  const Family& family = family_of(directory);
  const std::string where = directory.where("vocab.json");
  auto vocabulary = std::make_shared<Vocabulary>();
  for (auto& [piece, id] : read_vocab_json(where)) vocabulary->set(id, std::move(piece), Kind::normal, where);
  vocabulary->finish();

  std::vector<AddedToken> added = directory.declared_tokens();
  add_role_tokens(directory, family, *vocabulary, added);
  for (const AddedToken& t : added)
    vocabulary->set(t.id, t.content, t.special ? Kind::control : Kind::user_defined, where);
  vocabulary->finish();

  std::vector<PretokenizerStep> steps{ClassicSplit{family.pattern}, ByteLetters{}};
  if (flag_or(directory.tokenizer_config, "add_prefix_space", false)) steps.insert(steps.begin(), SpacePrefix{});

  PipelineParts parts{.vocabulary = vocabulary,
                      .bpe = Bpe::from_merges(vocabulary, read_merges_text(directory.path / "merges.txt"),
                                              {.byte_letters = true}, directory.where("merges.txt")),
                      .normalizer = family.nfc ? Normalizer({Form::nfc}) : Normalizer(),
                      .pretokenizer = Pretokenizer(std::move(steps)),
                      .decoder = Decoder({FromByteLetters{}}),
                      .added = std::move(added),
                      .prefix = {},
                      .suffix = {},
                      .special = directory.special_ids(*vocabulary),
                      .where = where};
  if (!parts.special.bos && !family.default_token.empty()) parts.special.bos = vocabulary->find(family.default_token);
  if (parts.special.eos.empty() && !family.default_token.empty())
    if (const auto id = vocabulary->find(family.default_token)) parts.special.eos = {*id};
  const bool opt = text_or(directory.config, "model_type", "") == "opt";
  const bool bos = family.brackets || flag_or(directory.tokenizer_config, "add_bos_token", opt);
  if (bos && parts.special.bos) parts.prefix = {*parts.special.bos};
  if (family.brackets && !parts.special.eos.empty()) parts.suffix = {parts.special.eos.back()};
  return parts;
}

}  // namespace pare::tok
