// `tokenizer.ggml.pre`: the names under which GGUF readers know the split patterns of byte-level tokenizers, both ways.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pare/tokenizer/pretokenizer.h"

namespace pare::tok {

struct NamedPre {
  std::vector<PretokenizerStep> steps;
  bool ignore_merges = false;  // readers behave so for this name, whatever the file says
  bool adds_bos = false;       // unless the file says otherwise
};

// Throws Error listing the known names.
NamedPre pre_from_name(const std::string& name, const std::string& where);

// The name for a pre-tokenizer read from tokenizer.json; nullopt when readers know none that cuts the same way.
std::optional<std::string> name_of_pre(const Pretokenizer& pretokenizer, bool ignore_merges);

}  // namespace pare::tok
