#include "pare/tokenizer/vocabulary_json.h"

#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"
#include "pare/tokenizer/json_fields.h"

namespace pare::tok {
namespace {

constexpr size_t kMaxBytes = size_t{256} << 20;
constexpr int kMaxDepth = 64;

// Builds the tree, but hands the entries of two containers over as they come: those whose path (keys from the root,
// joined by dots) is `vocabulary_path` and `merges_path`.
class Reader : public nlohmann::json_sax<Json> {
 public:
  Reader(std::string where, std::string vocabulary_path, std::string merges_path)
      : where_(std::move(where)), vocabulary_path_(std::move(vocabulary_path)), merges_path_(std::move(merges_path)) {}

  VocabularyJson result;

  bool null() override { return value(Json()); }
  bool boolean(bool v) override { return value(Json(v)); }
  bool number_integer(number_integer_t v) override { return value(Json(v)); }
  bool number_unsigned(number_unsigned_t v) override { return value(Json(v)); }
  bool number_float(number_float_t v, const string_t&) override { return value(Json(v)); }
  bool string(string_t& v) override {
    if (taking_ == Taking::merges) return merge_part(v);
    return value(Json(std::move(v)));
  }
  bool binary(binary_t&) override { return true; }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool start_object(size_t) override { return enter(Json::object(), Taking::vocabulary, vocabulary_path_); }
  bool end_object() override { return leave(); }
  bool start_array(size_t) override { return enter(Json::array(), Taking::merges, merges_path_); }
  bool end_array() override { return leave(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    throw Error({.what = "not valid JSON",
                 .where = fmt::format("{} at byte {}", where_, position),
                 .got = e.what(),
                 .remedy = "the file is damaged or not what it claims to be; fetch it again"});
  }

 private:
  enum class Taking { nothing, vocabulary, merges };

  [[noreturn]] void refuse(const std::string& what) const { throw Error({.what = what, .where = where_}); }

  bool enter(Json empty, Taking kind, const std::string& wanted) {
    if (++depth_ > kMaxDepth) refuse("the JSON is nested too deeply");
    if (taking_ == Taking::merges) {
      pair_.clear();
      if (kind != Taking::merges || depth_ != taken_depth_ + 1) refuse("a merge is not a pair of strings");
      return true;
    }
    if (taking_ == Taking::vocabulary) refuse("a token id is not a number");
    if (path_to_here() == wanted && depth_ > 0) {
      taking_ = kind;
      taken_depth_ = depth_;
      return true;
    }
    paths_.push_back(path_to_here());
    open_.push_back(place(std::move(empty)));
    return true;
  }
  bool leave() {
    const int closing = depth_--;
    if (taking_ == Taking::nothing) {
      open_.pop_back();
      paths_.pop_back();
    } else if (closing == taken_depth_) {
      taking_ = Taking::nothing;
    } else {
      if (pair_.size() != 2) refuse("a merge is not a pair of strings");
      result.merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
    }
    return true;
  }
  bool value(Json v) {
    if (taking_ == Taking::vocabulary)
      result.vocabulary.emplace_back(std::move(key_), id_from(v, where_));
    else if (taking_ == Taking::merges)
      refuse("a merge is not a pair of strings");
    else
      place(std::move(v));
    return true;
  }
  bool merge_part(std::string& text) {
    if (depth_ == taken_depth_)
      result.merges.push_back(split_merge(text, where_));
    else if (pair_.size() == 2)
      refuse("a merge is not a pair of strings");
    else
      pair_.push_back(std::move(text));
    return true;
  }
  std::string path_to_here() const {
    if (open_.empty()) return "";
    return open_.back()->is_object() ? (paths_.back().empty() ? key_ : paths_.back() + "." + key_) : "[]";
  }
  Json* place(Json v) {
    if (open_.empty()) {
      result.rest = std::move(v);
      return &result.rest;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) return &parent.emplace_back(std::move(v));
    return &(parent[key_] = std::move(v));
  }

  std::string where_, vocabulary_path_, merges_path_;
  std::vector<Json*> open_;  // only the innermost grows, so the outer ones stay where they are
  std::vector<std::string> paths_;
  std::string key_;
  std::vector<std::string> pair_;
  Taking taking_ = Taking::nothing;
  int depth_ = 0, taken_depth_ = 0;
};

VocabularyJson read(const std::filesystem::path& path, std::string vocabulary_path, std::string merges_path) {
  const std::string text = read_text_file(path, kMaxBytes);
  Reader reader(path.string(), std::move(vocabulary_path), std::move(merges_path));
  Json::sax_parse(text, &reader);
  return std::move(reader.result);
}

}  // namespace

VocabularyJson read_tokenizer_json(const std::filesystem::path& path) {
  return read(path, "model.vocab", "model.merges");
}

std::vector<std::pair<std::string, int32_t>> read_vocab_json(const std::filesystem::path& path) {
  VocabularyJson json = read(path, "", "[]");
  if (!json.rest.is_null())
    throw Error({.what = "not a vocabulary", .where = path.string(), .expected = "a JSON object"});
  return std::move(json.vocabulary);
}

std::pair<std::string, std::string> split_merge(const std::string& line, const std::string& where) {
  const size_t space = line.find(' ');
  if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
    throw Error({.what = "a merge is not two pieces", .where = where, .got = fmt::format("\"{:.80}\"", line)});
  return {line.substr(0, space), line.substr(space + 1)};
}

std::vector<std::pair<std::string, std::string>> read_merges_text(const std::filesystem::path& path) {
  const std::string text = read_text_file(path, kMaxBytes);
  std::vector<std::pair<std::string, std::string>> merges;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    merges.push_back(split_merge(line, fmt::format("{} line {}", path.string(), number)));
  }
  return merges;
}

}  // namespace pare::tok
