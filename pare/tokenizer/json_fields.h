// Fields of an untrusted JSON object, each with a message that says where it stands.
#pragma once

#include <fmt/format.h>

#include <string>

#include "pare/base/error.h"
#include "pare/base/json.h"

namespace pare::tok {

[[noreturn]] inline void bad_field(const std::string& where, const std::string& what, const std::string& expected) {
  throw Error({.what = what, .where = where, .expected = expected});
}

inline const Json& field(const Json& object, const char* key, const std::string& where) {
  if (!object.is_object()) bad_field(where, "not a JSON object", fmt::format("an object with \"{}\"", key));
  const auto at = object.find(key);
  if (at == object.end()) bad_field(where, fmt::format("\"{}\" is missing", key), "");
  return *at;
}
inline std::string text_field(const Json& object, const char* key, const std::string& where) {
  const Json& value = field(object, key, where);
  if (!value.is_string()) bad_field(where, fmt::format("\"{}\" is not a string", key), "a string");
  return value.get<std::string>();
}
// A string that may be absent or null.
inline std::string text_or(const Json& object, const char* key, const std::string& otherwise) {
  if (!object.is_object()) return otherwise;
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : otherwise;
}
inline bool flag_or(const Json& object, const char* key, bool otherwise) {
  if (!object.is_object()) return otherwise;
  const auto at = object.find(key);
  return at != object.end() && at->is_boolean() ? at->get<bool>() : otherwise;
}
// A count or id: an integer in [0, 2^31).
inline int32_t id_from(const Json& value, const std::string& where) {
  if (!value.is_number_integer()) bad_field(where, "a token id is not a number", "a number from 0 to 2^31 - 1");
  const bool large = value.is_number_unsigned() && value.get<uint64_t>() > INT32_MAX;
  if (large || value.get<int64_t>() < 0 || value.get<int64_t>() > INT32_MAX)
    bad_field(where, "a token id is out of range", "a number from 0 to 2^31 - 1");
  return static_cast<int32_t>(value.get<int64_t>());
}
inline const Json& array_field(const Json& object, const char* key, const std::string& where) {
  const Json& value = field(object, key, where);
  if (!value.is_array()) bad_field(where, fmt::format("\"{}\" is not a list", key), "a list");
  return value;
}

}  // namespace pare::tok
