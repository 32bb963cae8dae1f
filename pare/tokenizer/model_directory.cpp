#include "pare/tokenizer/model_directory.h"

#include <algorithm>
#include <charconv>

#include "pare/tokenizer/json_fields.h"

namespace pare::tok {
namespace {

Json read_if_there(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_json_file(path.string()) : Json();
}

int32_t id_from_key(const std::string& key, const std::string& where) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size() || id < 0)
    bad_field(where, fmt::format("\"{}\" is not a token id", key), "a number from 0 to 2^31 - 1");
  return id;
}

void add_unique(std::vector<int32_t>& ids, int32_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace

std::string token_text(const Json& json) {
  return json.is_string() ? json.get<std::string>() : text_or(json, "content", "");
}

AddedToken parse_added_token(const Json& json, int32_t id, const std::string& where) {
  AddedToken token;
  token.id = id;
  token.content = text_field(json, "content", where);
  token.special = flag_or(json, "special", false);
  token.normalized = flag_or(json, "normalized", !token.special);
  token.single_word = flag_or(json, "single_word", false);
  token.lstrip = flag_or(json, "lstrip", false);
  token.rstrip = flag_or(json, "rstrip", false);
  return token;
}

std::vector<int32_t> id_list(const Json& object, const char* key) {
  std::vector<int32_t> ids;
  if (!object.is_object() || !object.contains(key)) return ids;
  const auto add = [&](const Json& id) {
    if (id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < Vocabulary::kMaxSize)
      ids.push_back(id.get<int32_t>());
  };
  const Json& value = object.at(key);
  if (value.is_array())
    for (const Json& id : value) add(id);
  else
    add(value);
  return ids;
}

ModelDirectory ModelDirectory::open(const std::filesystem::path& path) {
  const auto read = [&](const char* name) { return read_if_there(path / name); };
  return {path,
          read("tokenizer_config.json"),
          read("special_tokens_map.json"),
          read("generation_config.json"),
          read("config.json"),
          read("added_tokens.json")};
}

std::string ModelDirectory::role(const char* name) const {
  for (const Json* file : {&tokenizer_config, &special_tokens_map}) {
    if (!file->is_object() || !file->contains(name)) continue;
    const std::string text = token_text(file->at(name));
    if (!text.empty()) return text;
  }
  return "";
}

std::vector<AddedToken> ModelDirectory::declared_tokens() const {
  std::vector<AddedToken> tokens;
  const std::string config_file = where("tokenizer_config.json");
  if (tokenizer_config.is_object() && tokenizer_config.contains("added_tokens_decoder")) {
    const Json& decoder = tokenizer_config.at("added_tokens_decoder");
    if (!decoder.is_object()) bad_field(config_file, "\"added_tokens_decoder\" is not an object", "id -> token");
    for (const auto& [key, token] : decoder.items())
      tokens.push_back(parse_added_token(token, id_from_key(key, config_file), config_file));
  }
  if (added_tokens.is_object())
    for (const auto& [content, id] : added_tokens.items()) {
      const int32_t number = id_from(id, where("added_tokens.json"));
      const bool known = std::any_of(tokens.begin(), tokens.end(), [&](const auto& t) { return t.id == number; });
      if (!known) tokens.push_back({.id = number, .content = content});
    }
  return tokens;
}

SpecialIds ModelDirectory::special_ids(const Vocabulary& vocabulary) const {
  SpecialIds special;
  special.bos = vocabulary.find(role("bos_token"));
  for (const Json* file : {&generation_config, &config})
    if (const auto ids = id_list(*file, "bos_token_id"); !special.bos && ids.size() == 1 && vocabulary.has(ids[0]))
      special.bos = ids[0];
  for (const Json* file : {&generation_config, &config})
    for (const int32_t id : id_list(*file, "eos_token_id"))
      if (vocabulary.has(id)) add_unique(special.eos, id);
  if (const auto id = vocabulary.find(role("eos_token"))) add_unique(special.eos, *id);
  return special;
}

}  // namespace pare::tok
