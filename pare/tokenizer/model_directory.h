// What the small JSON files of a Hugging Face directory say about its tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "pare/base/json.h"
#include "pare/tokenizer/added_tokens.h"
#include "pare/tokenizer/pipeline.h"
#include "pare/tokenizer/vocabulary.h"

namespace pare::tok {

struct ModelDirectory {
  std::filesystem::path path;
  Json tokenizer_config, special_tokens_map, generation_config, config, added_tokens;  // null when the file is missing

  static ModelDirectory open(const std::filesystem::path& path);
  bool has(const char* file) const { return std::filesystem::exists(path / file); }
  std::string where(const char* file) const { return (path / file).string(); }

  // The spelling of a role such as "bos_token"; empty when no file gives one.
  std::string role(const char* name) const;
  // tokenizer_config's `added_tokens_decoder` and added_tokens.json.
  std::vector<AddedToken> declared_tokens() const;
  SpecialIds special_ids(const Vocabulary& vocabulary) const;
};

// "content" of an object, or the string itself; empty for null.
std::string token_text(const Json& json);
AddedToken parse_added_token(const Json& json, int32_t id, const std::string& where);
// One id or a list of them; what is not an id is skipped.
std::vector<int32_t> id_list(const Json& object, const char* key);

// The pipelines of the files that a directory may hold.
PipelineParts pipeline_from_json(const ModelDirectory& directory);
PipelineParts pipeline_from_vocab_and_merges(const ModelDirectory& directory);
PipelineParts pipeline_from_sentencepiece(const ModelDirectory& directory);
PipelineParts pipeline_from_tiktoken(const ModelDirectory& directory);
bool is_tiktoken(const std::filesystem::path& path);

}  // namespace pare::tok
