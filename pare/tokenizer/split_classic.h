// The three split patterns that most models use, written by hand because they decide the speed of encoding. They cut
// exactly as the regular expressions do (tested against PCRE2 on random text).
//   gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   llama3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
//           |\s+(?!\S)|\s+
//   qwen2   as llama3 with \p{N} for \p{N}{1,3}
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace pare::tok {

enum class Classic { gpt2, llama3, qwen2 };

// One canonical spelling of each, for building tokenizers that come without a pattern.
std::string_view classic_regex(Classic pattern);
// Recognizes the spellings found in published files.
std::optional<Classic> classic_from_regex(std::string_view regex);

// Appends the pieces of `text`; together they are the whole text.
void split_classic(Classic pattern, std::string_view text, std::vector<std::string_view>& pieces);

}  // namespace pare::tok
