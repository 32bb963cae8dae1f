// Key-value metadata as GGUF knows it: what the container stores, and what model and tokenizer read and produce
// without knowing the container. Source: GGUF specification, version 3.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pare {

// Order of the alternatives = the format's type ids 0…7, 10…12, then string and the arrays.
using MetaValue =
    std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, uint64_t, int64_t, double,
                 std::string, std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                 std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
                 std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

class Metadata {
 public:
  // In file order. `set` replaces a value in place or appends.
  void set(std::string key, MetaValue value);
  // `set` for a key known to be new: a reader that checks for duplicates itself needs no search per key.
  void append(std::string key, MetaValue value) { entries_.emplace_back(std::move(key), std::move(value)); }
  const MetaValue* find(std::string_view key) const;
  const std::vector<std::pair<std::string, MetaValue>>& entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }

  // Lenient readers: any integer type that fits; nullopt when absent; throw Error on a value of another kind.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  template <class T>
  const std::vector<T>* array(std::string_view key) const {
    const MetaValue* value = find(key);
    return value ? std::get_if<std::vector<T>>(value) : nullptr;
  }

 private:
  std::vector<std::pair<std::string, MetaValue>> entries_;
};

}  // namespace pare
