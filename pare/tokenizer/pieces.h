// A text on its way through normalizers and pre-tokenizers.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace pare::tok {

// Pieces point into the caller's text or, once a step has rewritten one, into `rewritten` (a deque: its strings never
// move).
struct Pieces {
  std::vector<std::string_view> list;
  std::deque<std::string> rewritten;

  std::string_view keep(std::string text) { return rewritten.emplace_back(std::move(text)); }
};

}  // namespace pare::tok
