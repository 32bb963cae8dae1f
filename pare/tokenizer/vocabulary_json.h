// JSON whose vocabulary has hundreds of thousands of entries: the vocabulary and the merges are taken out while
// reading, the rest becomes a small tree.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "pare/base/json.h"

namespace pare::tok {

struct VocabularyJson {
  Json rest;  // without model.vocab and model.merges
  std::vector<std::pair<std::string, int32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;
};

VocabularyJson read_tokenizer_json(const std::filesystem::path& path);
// vocab.json: one object, piece -> id.
std::vector<std::pair<std::string, int32_t>> read_vocab_json(const std::filesystem::path& path);
// merges.txt: "left right" per line; a first line that begins with #version is skipped.
std::vector<std::pair<std::string, std::string>> read_merges_text(const std::filesystem::path& path);
std::pair<std::string, std::string> split_merge(const std::string& line, const std::string& where);

}  // namespace pare::tok
