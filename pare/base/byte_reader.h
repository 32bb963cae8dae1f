// A cursor over little-endian bytes that never reads past their end.
#pragma once

#include <fmt/format.h>

#include <cstring>
#include <span>
#include <string>

#include "pare/base/error.h"

namespace pare {

class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  size_t offset() const { return offset_; }
  size_t left() const { return bytes_.size() - offset_; }

  template <class T>
  T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> take(uint64_t count, const char* what) {
    if (count > left())
      throw Error({.what = fmt::format("the file ends inside {}", what),
                   .where = fmt::format("{} at byte {}", where_, offset_),
                   .expected = fmt::format("{} bytes", count),
                   .got = fmt::format("{} left", left()),
                   .remedy = "the file is truncated or damaged; fetch it again"});
    const auto part = bytes_.subspan(offset_, static_cast<size_t>(count));
    offset_ += static_cast<size_t>(count);
    return part;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
  size_t offset_ = 0;
};

}  // namespace pare
