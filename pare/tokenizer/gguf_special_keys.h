// The part of a GGUF vocabulary that is gathered from the small JSON files: ids of special tokens, what is put around a
// text, chat templates.
#pragma once

#include <cstdint>

#include "pare/base/metadata.h"
#include "pare/tokenizer/model_directory.h"

namespace pare::tok {

// Appends …_token_id, add_…_token and chat_template in the order of the reference converter. `tokenizer` is the tree of
// tokenizer.json, null when there is none.
void add_special_keys(const ModelDirectory& directory, const Json& tokenizer, int64_t vocabulary_size,
                      Metadata& metadata);

}  // namespace pare::tok
