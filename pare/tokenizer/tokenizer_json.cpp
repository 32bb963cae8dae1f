// tokenizer.json, the description of a whole tokenizer.
#include <algorithm>

#include "pare/tokenizer/json_fields.h"
#include "pare/tokenizer/model_directory.h"
#include "pare/tokenizer/vocabulary_json.h"

namespace pare::tok {
namespace {

Json part_of(const Json& json, const char* key) {
  return json.is_object() && json.contains(key) ? json.at(key) : Json();
}

void check_model(const Json& model, const std::string& where) {
  // Files older than the field are BPE when they have merges (which were taken out while reading).
  const std::string type = text_or(model, "type", "BPE");
  if (type != "BPE")
    throw Error({.what = fmt::format("a {} tokenizer is not supported", type), .where = where, .expected = "BPE"});
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!text_or(model, key, "").empty())
      throw Error({.what = fmt::format("the BPE option \"{}\" is not supported", key),
                   .where = where,
                   .expected = "null or empty, as in every language model known to us"});
  if (model.contains("dropout") && model.at("dropout").is_number() && model.at("dropout").get<double>() != 0)
    throw Error({.what = "BPE dropout makes tokens random", .where = where, .expected = "null or 0"});
}

std::vector<AddedToken> parse_added(const Json& json, const std::string& where) {
  std::vector<AddedToken> tokens;
  const Json list = part_of(json, "added_tokens");
  if (!list.is_null() && !list.is_array()) bad_field(where, "\"added_tokens\" is not a list", "a list");
  for (const Json& token : list)
    tokens.push_back(parse_added_token(token, id_from(field(token, "id", where), where), where + ": added_tokens"));
  return tokens;
}

std::shared_ptr<const Vocabulary> build_vocabulary(VocabularyJson& json, const std::vector<AddedToken>& added,
                                                   bool byte_fallback, const std::string& unknown,
                                                   const std::string& where) {
  auto vocabulary = std::make_shared<Vocabulary>();
  for (auto& [piece, id] : json.vocabulary) {
    const Kind kind = byte_fallback && byte_of_piece(piece) >= 0 ? Kind::byte
                      : !unknown.empty() && piece == unknown     ? Kind::unknown
                                                                 : Kind::normal;
    vocabulary->set(id, std::move(piece), kind, where);
  }
  for (const AddedToken& t : added)
    vocabulary->set(t.id, t.content,
                    t.content == unknown ? Kind::unknown
                    : t.special          ? Kind::control
                                         : Kind::user_defined,
                    where);
  vocabulary->finish();
  return vocabulary;
}

// What surrounds one text: [prefix] A [suffix].
class Template {
 public:
  Template(const Vocabulary& vocabulary, std::string where) : vocabulary_(vocabulary), where_(std::move(where)) {}
  std::vector<int32_t> prefix, suffix;

  void parse(const Json& json, int depth = 0) {
    if (json.is_null()) return;
    if (depth > 8) bad_field(where_, "post-processors are nested too deeply", "at most 8 levels");
    const std::string type = text_field(json, "type", where_);
    if (type == "Sequence") {
      for (const Json& step : array_field(json, "processors", where_)) parse(step, depth + 1);
    } else if (type == "TemplateProcessing") {
      parse_template(json);
    } else if (type == "RobertaProcessing" || type == "BertProcessing") {
      prefix.insert(prefix.begin(), pair_id(field(json, "cls", where_)));
      suffix.push_back(pair_id(field(json, "sep", where_)));
    } else if (type != "ByteLevel") {  // which only trims offsets
      throw Error({.what = fmt::format("the post-processor \"{}\" is not supported", type),
                   .where = where_,
                   .expected = "Sequence, TemplateProcessing, RobertaProcessing, BertProcessing or ByteLevel"});
    }
  }

 private:
  int32_t checked(const Json& id) const {
    const int32_t number = id_from(id, where_);
    if (!vocabulary_.has(number))
      bad_field(where_, fmt::format("the template names token {}", number), "an id of the vocabulary");
    return number;
  }
  int32_t pair_id(const Json& pair) const {
    if (!pair.is_array() || pair.size() != 2) bad_field(where_, "not a token with its id", "[\"token\", id]");
    return checked(pair[1]);
  }
  void parse_template(const Json& json) {
    std::vector<int32_t> before, after;
    bool text_seen = false;
    for (const Json& item : array_field(json, "single", where_)) {
      if (item.is_object() && item.contains("Sequence")) {
        if (text_seen) bad_field(where_, "the template repeats the text", "the text once");
        text_seen = true;
        continue;
      }
      const std::string name = text_field(field(item, "SpecialToken", where_), "id", where_);
      const Json& token = field(field(json, "special_tokens", where_), name.c_str(), where_);
      for (const Json& id : array_field(token, "ids", where_)) (text_seen ? after : before).push_back(checked(id));
    }
    if (!text_seen) bad_field(where_, "the template leaves the text out", "the text once");
    prefix.insert(prefix.begin(), before.begin(), before.end());
    suffix.insert(suffix.end(), after.begin(), after.end());
  }

  const Vocabulary& vocabulary_;
  std::string where_;
};

}  // namespace

PipelineParts pipeline_from_json(const ModelDirectory& directory) {
  const std::string where = directory.where("tokenizer.json");
  VocabularyJson json = read_tokenizer_json(where);
  const Json& model = field(json.rest, "model", where);
  if (!model.is_object()) bad_field(where, "\"model\" is not an object", "the vocabulary and its merges");
  check_model(model, where);

  std::vector<AddedToken> added = parse_added(json.rest, where);
  const std::string unknown = text_or(model, "unk_token", "");
  BpeOptions options;
  options.byte_fallback = flag_or(model, "byte_fallback", false);
  options.ignore_merges = flag_or(model, "ignore_merges", false);
  options.fuse_unknown = flag_or(model, "fuse_unk", false);
  const auto vocabulary = build_vocabulary(json, added, options.byte_fallback, unknown, where);
  if (!unknown.empty()) options.unknown = vocabulary->find(unknown);

  Normalizer normalizer = Normalizer::parse(part_of(json.rest, "normalizer"), where);
  Pretokenizer pretokenizer = Pretokenizer::parse(part_of(json.rest, "pre_tokenizer"), where);
  options.byte_letters = pretokenizer.letters_last();
  Template around(*vocabulary, where + ": post_processor");
  around.parse(part_of(json.rest, "post_processor"));

  SpecialIds special = directory.special_ids(*vocabulary);
  if (!special.bos && around.prefix.size() == 1) special.bos = around.prefix[0];
  return {.vocabulary = vocabulary,
          .bpe = Bpe::from_merges(vocabulary, json.merges, options, where),
          .normalizer = std::move(normalizer),
          .pretokenizer = std::move(pretokenizer),
          .decoder = Decoder::parse(part_of(json.rest, "decoder"), where),
          .added = std::move(added),
          .prefix = std::move(around.prefix),
          .suffix = std::move(around.suffix),
          .special = std::move(special),
          .where = where};
}

}  // namespace pare::tok
