#include "pare/base/metadata.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "pare/base/error.h"

namespace pare {
namespace {

[[noreturn]] void throw_kind(std::string_view key, const char* expected) {
  throw Error({.what = "a metadata value has the wrong type",
               .where = std::string(key),
               .expected = expected,
               .remedy = "the file was written by a faulty tool; convert the model again"});
}

}  // namespace

void Metadata::set(std::string key, MetaValue value) {
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.first == key; });
  if (at != entries_.end())
    at->second = std::move(value);
  else
    entries_.emplace_back(std::move(key), std::move(value));
}

const MetaValue* Metadata::find(std::string_view key) const {
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.first == key; });
  return at == entries_.end() ? nullptr : &at->second;
}

std::optional<int64_t> Metadata::integer(std::string_view key) const {
  const MetaValue* value = find(key);
  if (!value) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> int64_t {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (!std::in_range<int64_t>(v)) throw_kind(key, "an integer below 2^63");
          return static_cast<int64_t>(v);
        } else {
          throw_kind(key, "an integer");
        }
      },
      *value);
}

std::optional<double> Metadata::number(std::string_view key) const {
  const MetaValue* value = find(key);
  if (!value) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> double {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
          return static_cast<double>(v);
        else
          throw_kind(key, "a number");
      },
      *value);
}

std::optional<bool> Metadata::boolean(std::string_view key) const {
  const MetaValue* value = find(key);
  if (!value) return std::nullopt;
  if (const bool* v = std::get_if<bool>(value)) return *v;
  throw_kind(key, "true or false");
}

std::optional<std::string> Metadata::text(std::string_view key) const {
  const MetaValue* value = find(key);
  if (!value) return std::nullopt;
  if (const std::string* v = std::get_if<std::string>(value)) return *v;
  throw_kind(key, "a string");
}

}  // namespace pare
