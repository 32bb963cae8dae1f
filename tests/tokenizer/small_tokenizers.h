// Tokenizers small enough to work out by hand.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "pare/base/json.h"
#include "pare/tokenizer/tokenizer.h"
#include "tests/support/golden.h"

namespace pare::test {

// A tokenizer.json with the given model; further members are added or replaced by `parts`.
inline Json tokenizer_json(const Json& model, const Json& parts = Json::object()) {
  Json json = {{"version", "1.0"},
               {"added_tokens", Json::array()},
               {"normalizer", nullptr},
               {"pre_tokenizer", nullptr},
               {"post_processor", nullptr},
               {"decoder", nullptr},
               {"model", model}};
  json.update(parts);
  return json;
}

inline std::shared_ptr<const Tokenizer> load(const Json& json) {
  const TemporaryDirectory directory;
  std::ofstream(directory / "tokenizer.json") << json.dump();
  return Tokenizer::from_directory(directory.path());
}

// Letters a–d, "ab", "abc", "cd", ▁, and what the parts add. Merges in this order: a b | c d | ab c
inline Json letters_model(const Json& more = Json::object()) {
  Json model = {
      {"type", "BPE"},
      {"vocab",
       {{"<unk>", 0}, {"a", 1}, {"b", 2}, {"c", 3}, {"d", 4}, {"ab", 5}, {"abc", 6}, {"cd", 7}, {"\u2581", 8}}},
      {"merges", {"a b", "c d", "ab c"}}};
  model.update(more);
  return model;
}

// Every byte a token of its own (id = byte value), spelt in the byte-level alphabet; merges may follow.
Json byte_model();

}  // namespace pare::test
