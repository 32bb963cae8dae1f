// The tokenizer files of a Hugging Face directory, made from the vocabulary inside a GGUF file: the way back of
// gguf_vocabulary. Sources: formats.md §3.8, §6.4, §6.5.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pare/base/metadata.h"

namespace pare {

// File name -> content: tokenizer.model for a SentencePiece vocabulary, tokenizer.json for a byte-level one; beside it
// tokenizer_config.json with the special tokens and the chat template. Throws Error for other kinds of vocabulary.
std::vector<std::pair<std::string, std::string>> hf_tokenizer_files(const Metadata& metadata, const std::string& where);

}  // namespace pare
