// Pieces by id and ids by piece.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pare/tokenizer/tokenizer.h"

namespace pare::tok {

using Kind = TokenInfo::Kind;

class Vocabulary {
 public:
  static constexpr int64_t kMaxSize = int64_t{1} << 24;  // far above any model, far below what exhausts memory

  Vocabulary() = default;
  Vocabulary(const Vocabulary&) = delete;  // the index points into the pieces
  Vocabulary& operator=(const Vocabulary&) = delete;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  // Gaps below `id` have no piece. An id given again is overwritten; a piece that is not
  // UTF-8 is repaired. Throws Error.
  void set(int32_t id, std::string piece, Kind kind, const std::string& where);
  // Builds the index; nothing is set afterwards. Of equal pieces the first id is found.
  void finish();

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  bool has(int32_t id) const { return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].used; }
  const std::string& piece(int32_t id) const { return entries_[static_cast<size_t>(id)].piece; }
  Kind kind(int32_t id) const { return entries_[static_cast<size_t>(id)].kind; }
  std::optional<int32_t> find(std::string_view piece) const;

 private:
  struct Entry {
    std::string piece;
    Kind kind = Kind::unused;
    bool used = false;
  };
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, int32_t> ids_;
};

}  // namespace pare::tok
