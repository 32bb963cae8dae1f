// tokenizer.model of SentencePiece: its pieces and the settings that matter.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "pare/tokenizer/vocabulary.h"

namespace pare::tok {

struct SentencePieceModel {
  struct Piece {
    std::string text;
    float score = 0;
    Kind kind = Kind::normal;
  };
  std::vector<Piece> pieces;
  enum class Type { unigram = 1, bpe = 2, word = 3, character = 4 } type = Type::unigram;
  bool byte_fallback = false;
  int64_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;
  std::string normalizer;          // "identity", "nmt_nfkc", …
  bool has_normalization = false;  // a table of replacements is applied to the text
  bool dummy_prefix = true;        // a space in front of the text
  bool remove_extra_spaces = true;
  bool escape_spaces = true;

  static SentencePieceModel read(const std::filesystem::path& path);
  static SentencePieceModel parse(std::span<const std::byte> bytes, const std::string& where);
};

}  // namespace pare::tok
