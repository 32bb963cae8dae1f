#include "pare/tokenizer/vocabulary.h"

#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/base/utf8.h"
#include "pare/tokenizer/unicode.h"

namespace pare::tok {

void Vocabulary::set(int32_t id, std::string piece, Kind kind, const std::string& where) {
  if (id < 0 || id >= kMaxSize)
    throw Error({.what = "a token id is out of range",
                 .where = where,
                 .expected = fmt::format("ids from 0 to {}", kMaxSize - 1),
                 .got = fmt::format("{} for {:?}", id, piece)});
  if (id >= size()) entries_.resize(static_cast<size_t>(id) + 1);
  Entry& entry = entries_[static_cast<size_t>(id)];
  entry = {is_utf8(piece) ? std::move(piece) : repair_utf8(piece), kind, true};
}

void Vocabulary::finish() {
  ids_.clear();
  ids_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].used) ids_.emplace(entries_[i].piece, static_cast<int32_t>(i));
}

std::optional<int32_t> Vocabulary::find(std::string_view piece) const {
  const auto at = ids_.find(piece);
  return at == ids_.end() ? std::nullopt : std::optional(at->second);
}

}  // namespace pare::tok
