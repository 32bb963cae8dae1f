#include "pare/tokenizer/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "pare/base/error.h"
#include "pare/tokenizer/unicode.h"

namespace pare::tok {
namespace {

constexpr size_t kMaxContent = 4096;  // bytes; bounds the work per character of text

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !is_word(char_before(text, begin).code)) &&
         (end == text.size() || !is_word(char_at(text, end).code));
}

}  // namespace

TokenFinder::TokenFinder(std::vector<AddedToken> tokens, const std::string& where) : tokens_(std::move(tokens)) {
  nodes_.emplace_back();
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].content.size() > kMaxContent)
      throw Error({.what = "an added token is too long",
                   .where = fmt::format("{}: token {}", where, tokens_[i].id),
                   .expected = fmt::format("at most {} bytes", kMaxContent),
                   .got = fmt::format("{} bytes", tokens_[i].content.size())});
    if (!tokens_[i].content.empty()) add(i);
  }
}

int32_t TokenFinder::child(int32_t node, unsigned char byte) const {
  const auto& children = nodes_[static_cast<size_t>(node)].children;
  const auto at = std::lower_bound(children.begin(), children.end(), byte,
                                   [](const auto& entry, unsigned char b) { return entry.first < b; });
  return at != children.end() && at->first == byte ? at->second : -1;
}

void TokenFinder::add(size_t token) {
  const std::string& content = tokens_[token].content;
  begins_[static_cast<unsigned char>(content[0])] = true;
  int32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_.emplace_back();
      auto& children = nodes_[static_cast<size_t>(node)].children;
      children.insert(std::upper_bound(children.begin(), children.end(), std::pair(byte, next)), {byte, next});
    }
    node = next;
  }
  int32_t& here = nodes_[static_cast<size_t>(node)].token;
  if (here < 0) here = static_cast<int32_t>(token);
}

std::pair<int32_t, size_t> TokenFinder::longest_at(std::string_view text, size_t at, bool special_too) const {
  std::pair<int32_t, size_t> best{-1, at};
  int32_t node = 0;
  for (size_t i = at; i < text.size() && (node = child(node, static_cast<unsigned char>(text[i]))) >= 0; ++i) {
    const int32_t token = nodes_[static_cast<size_t>(node)].token;
    if (token >= 0 && (special_too || !tokens_[static_cast<size_t>(token)].special)) best = {token, i + 1};
  }
  return best;
}

void TokenFinder::split(std::string_view text, bool special_too, std::vector<Segment>& segments) const {
  segments.clear();
  size_t done = 0;  // everything before is in a segment
  for (size_t at = 0; at < text.size();) {
    if (tokens_.empty()) break;
    if (!begins_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const auto [token, match_end] = longest_at(text, at, special_too);
    if (token < 0) {
      ++at;
      continue;
    }
    const AddedToken& t = tokens_[static_cast<size_t>(token)];
    size_t begin = at, end = match_end;
    at = match_end;
    if (begin < done || (t.single_word && !stands_alone(text, begin, end))) continue;
    while (t.lstrip && begin > done && is_space(char_before(text, begin).code)) begin -= char_before(text, begin).bytes;
    while (t.rstrip && end < text.size() && is_space(char_at(text, end).code)) end += char_at(text, end).bytes;
    if (begin > done) segments.push_back({text.substr(done, begin - done), -1});
    segments.push_back({text.substr(begin, end - begin), t.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), -1});
}

}  // namespace pare::tok
