#include "pare/base/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"

namespace pare {
namespace {

// Walks the events of the parser before a tree is built, so that a hostile document costs neither stack nor memory.
class Guard : public nlohmann::json_sax<Json> {
 public:
  Guard(const std::string& where, const JsonLimits& limits) : where_(where), limits_(limits) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool start_array(size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (limits_.unique_keys && !keys_.back().insert(name).second)
      throw Error({.what = fmt::format("the JSON object has the key \"{}\" twice", name), .where = where_});
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    throw Error({.what = "not valid JSON",
                 .where = fmt::format("{} at byte {}", where_, position),
                 .got = e.what(),
                 .remedy = "the file is damaged or not what it claims to be; fetch it again"});
  }

 private:
  bool enter() {
    if (static_cast<int>(keys_.size()) >= limits_.depth)
      throw Error({.what = "the JSON is nested too deeply",
                   .where = where_,
                   .expected = fmt::format("at most {} levels", limits_.depth)});
    keys_.emplace_back();
    return true;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }
  const std::string& where_;
  const JsonLimits& limits_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    throw Error({.what = "the JSON is too large",
                 .where = where,
                 .expected = fmt::format("at most {} bytes", limits.bytes),
                 .got = fmt::format("{} bytes", text.size())});
  Guard guard(where, limits);
  Json::sax_parse(text, &guard);
  return Json::parse(text);
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
  return parse_json(read_text_file(path, limits.bytes), path, limits);
}

}  // namespace pare
