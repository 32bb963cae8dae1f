// Inside model/ only: typed access to config.json.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pare/base/error.h"
#include "pare/base/json.h"

namespace pare {

// An object of config.json. Every name of a list is a spelling of the same fact; null counts as absent.
class ConfigKeys {
 public:
  using Names = std::initializer_list<const char*>;
  ConfigKeys(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {}

  bool contains(const char* key) const { return json_->contains(key); }
  std::optional<int64_t> integer(Names names) const {
    const auto [key, value] = find(names);
    if (!value) return std::nullopt;
    if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})
      refuse(key, "an integer below 2^63", *value);
    if (!value->is_number_integer()) refuse(key, "an integer", *value);
    return value->get<int64_t>();
  }
  int64_t need_integer(Names names) const {
    if (const auto value = integer(names)) return *value;
    throw Error({.what = fmt::format("config.json lacks \"{}\"", *names.begin()),
                 .where = where_,
                 .expected = fmt::format("one of the keys {}", fmt::join(names, ", ")),
                 .remedy = "fetch the model's config.json again"});
  }
  std::optional<double> number(Names names) const {
    const auto [key, value] = find(names);
    if (!value) return std::nullopt;
    if (!value->is_number() || !std::isfinite(value->get<double>())) refuse(key, "a number", *value);
    return value->get<double>();
  }
  std::optional<bool> boolean(Names names) const {
    const auto [key, value] = find(names);
    if (!value) return std::nullopt;
    if (!value->is_boolean()) refuse(key, "true or false", *value);
    return value->get<bool>();
  }
  std::optional<std::string> text(Names names) const {
    const auto [key, value] = find(names);
    if (!value) return std::nullopt;
    if (!value->is_string()) refuse(key, "a string", *value);
    return value->get<std::string>();
  }
  std::optional<ConfigKeys> object(const char* key) const {
    const auto value = find({key}).second;
    if (!value) return std::nullopt;
    if (!value->is_object()) refuse(key, "an object", *value);
    return ConfigKeys(*value, fmt::format("{}: {}", where_, key));
  }
  const Json* find(const char* key) const { return find({key}).second; }
  [[noreturn]] void refuse(const std::string& key, const std::string& expected, const Json& got) const {
    std::string text = got.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 80) text.resize(80);
    throw Error({.what = fmt::format("config.json has an unusable \"{}\"", key),
                 .where = where_,
                 .expected = expected,
                 .got = text});
  }
  const std::string& where() const { return where_; }

 private:
  std::pair<std::string, const Json*> find(Names names) const {
    for (const char* name : names)
      if (const auto at = json_->find(name); at != json_->end() && !at->is_null()) return {name, &*at};
    return {"", nullptr};
  }
  const Json* json_;
  std::string where_;
};

}  // namespace pare
