// What the second reader's two halves share: a file in memory, a cursor over it, and the value of a stored number.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace pare::test {

inline std::string whole_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path.string());
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

class Cursor {
 public:
  Cursor(std::string bytes, std::string name) : bytes_(std::move(bytes)), name_(std::move(name)) {}
  uint64_t offset() const { return offset_; }
  uint64_t size() const { return bytes_.size(); }
  void seek(uint64_t offset) {
    if (offset > bytes_.size()) throw std::runtime_error(name_ + ": an offset past the end");
    offset_ = offset;
  }
  std::string take(uint64_t count) {
    if (count > bytes_.size() - offset_) throw std::runtime_error(name_ + ": ends too early");
    offset_ += count;
    return bytes_.substr(offset_ - count, count);
  }
  template <class T>
  T read() {
    T value;
    const std::string part = take(sizeof(T));
    std::memcpy(&value, part.data(), sizeof(T));
    return value;
  }

 private:
  std::string bytes_, name_;
  uint64_t offset_ = 0;
};

inline uint64_t count_of(const std::vector<int64_t>& shape) {
  uint64_t count = 1;
  for (const int64_t n : shape) {
    if (n < 0) throw std::runtime_error("a negative dimension");
    count *= static_cast<uint64_t>(n);
  }
  return count;
}

// IEEE binary16: | sign 1 | exponent 5, bias 15 | fraction 10 |
inline float f16_value(int bits) {
  const float sign = bits >> 15 & 1 ? -1.0f : 1.0f;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31)
    return fraction ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

template <class T>
T number_at(const std::string& bytes, size_t index) {
  T value;
  const std::string part = bytes.substr(index * sizeof(T), sizeof(T));
  if (part.size() != sizeof(T)) throw std::runtime_error("a number past the end");
  std::memcpy(&value, part.data(), sizeof(T));
  return value;
}

// Element `index` of an array of plain numbers, as f32.
inline float plain_value(const std::string& type, const std::string& bytes, size_t index) {
  if (type == "f32") return number_at<float>(bytes, index);
  if (type == "f64") return static_cast<float>(number_at<double>(bytes, index));
  if (type == "f16") return f16_value(number_at<uint16_t>(bytes, index));
  if (type == "bf16") {  // the upper half of an f32
    const uint32_t bits = static_cast<uint32_t>(number_at<uint16_t>(bytes, index)) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  if (type == "f8_e4m3") {  // | sign 1 | exponent 4, bias 7 | fraction 3 |, all ones is NaN
    const int bits = number_at<uint8_t>(bytes, index), exponent = bits >> 3 & 15, fraction = bits & 7;
    if ((bits & 127) == 127) return std::numeric_limits<float>::quiet_NaN();
    const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                     : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    return bits & 128 ? -size : size;
  }
  if (type == "i8") return static_cast<float>(number_at<int8_t>(bytes, index));
  if (type == "u8" || type == "bool") return static_cast<float>(number_at<uint8_t>(bytes, index));
  if (type == "i16") return static_cast<float>(number_at<int16_t>(bytes, index));
  if (type == "u16") return static_cast<float>(number_at<uint16_t>(bytes, index));
  if (type == "i32") return static_cast<float>(number_at<int32_t>(bytes, index));
  if (type == "u32") return static_cast<float>(number_at<uint32_t>(bytes, index));
  if (type == "i64") return static_cast<float>(number_at<int64_t>(bytes, index));
  if (type == "u64") return static_cast<float>(number_at<uint64_t>(bytes, index));
  throw std::runtime_error("no value for type " + type);
}

}  // namespace pare::test
