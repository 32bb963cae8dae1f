// Tokens that are cut out of the text before anything else happens to it (formats.md §6.4).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pare::tok {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // swallows the white space in front
  bool rstrip = false;       // and behind
  bool normalized = true;    // sought in the normalized text
  bool special = false;      // left out of decoded text on request, and of encoding without parse_special
};

// Finds several strings at once, leftmost first, the longest of those.
class TokenFinder {
 public:
  // Patterns are the contents as they stand in the text that will be searched.
  TokenFinder() = default;
  TokenFinder(std::vector<AddedToken> tokens, const std::string& where);

  struct Segment {
    std::string_view text;
    int32_t id;  // -1: ordinary text
  };
  // Cuts `text` completely; there are no empty segments of ordinary text.
  void split(std::string_view text, bool special_too, std::vector<Segment>& segments) const;
  bool empty() const { return tokens_.empty(); }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int32_t>> children;
    int32_t token = -1;  // the one that ends here
  };
  int32_t child(int32_t node, unsigned char byte) const;
  void add(size_t token);
  std::pair<int32_t, size_t> longest_at(std::string_view text, size_t at, bool special_too) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::vector<bool> begins_ = std::vector<bool>(256);
};

}  // namespace pare::tok
