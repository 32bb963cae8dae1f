#include "pare/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/tokenizer/gguf_pipeline.h"
#include "pare/tokenizer/model_directory.h"
#include "pare/tokenizer/pipeline.h"

namespace pare {

std::shared_ptr<const Tokenizer> Tokenizer::from_directory(const std::filesystem::path& path) {
  const auto directory = tok::ModelDirectory::open(path);
  if (directory.has("tokenizer.json")) return std::make_shared<tok::Pipeline>(pipeline_from_json(directory));
  if (directory.has("tokenizer.model"))
    return std::make_shared<tok::Pipeline>(tok::is_tiktoken(path / "tokenizer.model")
                                               ? pipeline_from_tiktoken(directory)
                                               : pipeline_from_sentencepiece(directory));
  if (directory.has("vocab.json") && directory.has("merges.txt"))
    return std::make_shared<tok::Pipeline>(pipeline_from_vocab_and_merges(directory));
  throw Error({.what = "no tokenizer found",
               .where = path.string(),
               .expected = "tokenizer.json, tokenizer.model, or vocab.json with merges.txt",
               .remedy = "fetch the tokenizer files of the model into this directory"});
}

std::shared_ptr<const Tokenizer> Tokenizer::from_metadata(const Metadata& metadata, const std::string& where) {
  return std::make_shared<tok::Pipeline>(tok::pipeline_from_metadata(metadata, where));
}

}  // namespace pare
