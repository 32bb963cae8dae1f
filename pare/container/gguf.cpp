#include "pare/container/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "pare/base/byte_reader.h"
#include "pare/base/error.h"
#include "pare/base/utf8.h"

namespace pare {
namespace {

// ids 4, 5, 31-33, 36-38 were removed from the format and are refused.
constexpr GgmlTypeInfo kTypes[] = {
    {0, "f32", 1, 4},         {1, "f16", 1, 2},         {2, "q4_0", 32, 18},      {3, "q4_1", 32, 20},
    {6, "q5_0", 32, 22},      {7, "q5_1", 32, 24},      {8, "q8_0", 32, 34},      {9, "q8_1", 32, 36},
    {10, "q2_k", 256, 84},    {11, "q3_k", 256, 110},   {12, "q4_k", 256, 144},   {13, "q5_k", 256, 176},
    {14, "q6_k", 256, 210},   {15, "q8_k", 256, 292},   {16, "iq2_xxs", 256, 66}, {17, "iq2_xs", 256, 74},
    {18, "iq3_xxs", 256, 98}, {19, "iq1_s", 256, 50},   {20, "iq4_nl", 32, 18},   {21, "iq3_s", 256, 110},
    {22, "iq2_s", 256, 82},   {23, "iq4_xs", 256, 136}, {24, "i8", 1, 1},         {25, "i16", 1, 2},
    {26, "i32", 1, 4},        {27, "i64", 1, 8},        {28, "f64", 1, 8},        {29, "iq1_m", 256, 56},
    {30, "bf16", 1, 2},       {34, "tq1_0", 256, 54},   {35, "tq2_0", 256, 66},   {39, "mxfp4", 32, 17},
    {40, "nvfp4", 64, 36},    {41, "q1_0", 128, 18},    {42, "q2_0", 64, 18},
};

constexpr uint64_t kMaxLength = uint64_t{1} << 30;  // of strings and arrays
constexpr int64_t kMaxKeys = 1 << 16, kMaxTensors = 1 << 20;
constexpr size_t kMaxTensorName = 64;  // bytes, a terminator included: names are shorter
constexpr uint32_t kMaxRank = 4;
// Fewest bytes that one key (length, one letter, type, one byte) and one tensor (length, one letter, n, ne, type,
// offset) can take: more of them than fit into the file are a lie.
constexpr uint64_t kSmallestKey = 8 + 1 + 4 + 1, kSmallestTensor = 8 + 1 + 4 + 8 + 4 + 8;

enum class ValueType : int32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

uint64_t padded(uint64_t size, uint64_t alignment) { return (size + alignment - 1) / alignment * alignment; }

class Reader {
 public:
  Reader(const std::string& file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes), in_(bytes, file) {}

  int read_header() {
    if (bytes_.size() < 4 || std::memcmp(in_.take(4, "the magic").data(), "GGUF", 4) != 0)
      fail("not a GGUF file", 0, "the letters GGUF", "other bytes", "give a GGUF file");
    const auto version = in_.read<uint32_t>("the version");
    if ((version & 0xFFFFu) == 0)
      fail("the file is big-endian", 4, "a little-endian file", "", "convert the model again on this kind of machine");
    if (version != 2 && version != 3)
      fail("this version of GGUF is not supported", 4, "2 or 3", std::to_string(version), "convert the model again");
    tensors_ = count("tensors", kSmallestTensor, kMaxTensors);
    keys_ = count("keys", kSmallestKey, kMaxKeys);
    return static_cast<int>(version);
  }

  void read_metadata(Metadata& metadata) {
    std::unordered_set<std::string> seen;
    for (int64_t i = 0; i < keys_; ++i) {
      const size_t at = in_.offset();
      std::string key = string("a key");
      if (key.empty()) fail("a key is empty", at, "a name", "");
      if (!seen.insert(key).second) fail("a key stands twice", at, "each key once", key);
      part_ = "key " + key;
      metadata.append(std::move(key), value(in_.read<int32_t>("the type of a value")));
      part_.clear();
    }
    read_alignment(metadata);
  }

  void read_tensors(std::vector<GgufEntry>& entries) {
    std::unordered_set<std::string> seen;
    std::vector<uint64_t> offsets;
    for (int64_t i = 0; i < tensors_; ++i) {
      entries.push_back(tensor(offsets.emplace_back()));
      if (!seen.insert(entries.back().name).second)
        fail("a tensor's name stands twice", in_.offset(), "each name once", entries.back().name);
    }
    part_.clear();
    place(entries, offsets);
  }

 private:
  int64_t count(const char* of, uint64_t smallest, int64_t limit) {
    const size_t at = in_.offset();
    const auto n = in_.read<int64_t>("a count");
    const int64_t most = std::min(limit, static_cast<int64_t>(bytes_.size() / smallest));
    if (n < 0 || n > most)
      fail(fmt::format("the number of {} cannot be right", of), at,
           fmt::format("0 to {} in a file of {} bytes", most, bytes_.size()), std::to_string(n));
    return n;
  }

  // How many elements of `size` bytes follow, of which at least that many bytes must be left.
  uint64_t length(const char* of, uint64_t size) {
    const size_t at = in_.offset();
    const auto n = in_.read<uint64_t>("a length");
    if (n > kMaxLength || n > in_.left() / size)
      fail(fmt::format("the length of {} cannot be right", of), at,
           fmt::format("at most {}", std::min<uint64_t>(kMaxLength, in_.left() / size)), std::to_string(n),
           "the file is truncated or damaged; fetch it again");
    return n;
  }

  std::string string(const char* of) {
    const auto bytes = in_.take(length(of, 1), of);
    std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (const size_t bad = first_invalid_utf8(text); bad != text.size())
      fail(fmt::format("{} is not UTF-8", of), in_.offset() - text.size() + bad, "UTF-8", "other bytes");
    return text;
  }

  bool boolean() { return in_.read<uint8_t>("a value") != 0; }

  MetaValue value(int32_t type) {
    switch (static_cast<ValueType>(type)) {
      case ValueType::u8:
        return in_.read<uint8_t>("a value");
      case ValueType::i8:
        return in_.read<int8_t>("a value");
      case ValueType::u16:
        return in_.read<uint16_t>("a value");
      case ValueType::i16:
        return in_.read<int16_t>("a value");
      case ValueType::u32:
        return in_.read<uint32_t>("a value");
      case ValueType::i32:
        return in_.read<int32_t>("a value");
      case ValueType::f32:
        return in_.read<float>("a value");
      case ValueType::boolean:
        return boolean();
      case ValueType::string:
        return string("a value");
      case ValueType::u64:
        return in_.read<uint64_t>("a value");
      case ValueType::i64:
        return in_.read<int64_t>("a value");
      case ValueType::f64:
        return in_.read<double>("a value");
      case ValueType::array:
        return array(in_.read<int32_t>("the type of an array"));
    }
    fail("the type of a value is unknown", in_.offset() - 4, "0 to 12", std::to_string(type));
  }

  MetaValue array(int32_t type) {
    switch (static_cast<ValueType>(type)) {
      case ValueType::u8:
        return numbers<uint8_t>();
      case ValueType::i8:
        return numbers<int8_t>();
      case ValueType::u16:
        return numbers<uint16_t>();
      case ValueType::i16:
        return numbers<int16_t>();
      case ValueType::u32:
        return numbers<uint32_t>();
      case ValueType::i32:
        return numbers<int32_t>();
      case ValueType::f32:
        return numbers<float>();
      case ValueType::u64:
        return numbers<uint64_t>();
      case ValueType::i64:
        return numbers<int64_t>();
      case ValueType::f64:
        return numbers<double>();
      case ValueType::boolean: {
        std::vector<bool> out(length("an array", 1));
        for (size_t i = 0; i < out.size(); ++i) out[i] = boolean();
        return out;
      }
      case ValueType::string: {
        std::vector<std::string> out(length("an array", 8));
        for (std::string& text : out) text = string("a string of an array");
        return out;
      }
      case ValueType::array:
        break;
    }
    fail(type == static_cast<int32_t>(ValueType::array) ? "arrays of arrays are not supported"
                                                        : "the type of an array is unknown",
         in_.offset() - 4, "0 to 8 or 10 to 12", std::to_string(type));
  }
  template <class T>
  std::vector<T> numbers() {
    std::vector<T> out(length("an array", sizeof(T)));
    const auto bytes = in_.take(out.size() * sizeof(T), "an array");
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }

  void read_alignment(const Metadata& metadata) {
    const MetaValue* value = metadata.find("general.alignment");
    if (!value) return;
    const auto* alignment = std::get_if<uint32_t>(value);
    if (!alignment || *alignment == 0 || (*alignment & (*alignment - 1)) != 0)
      fail("general.alignment cannot be right", in_.offset(), "a power of two, as u32",
           alignment ? std::to_string(*alignment) : "another type");
    alignment_ = *alignment;
  }

  GgufEntry tensor(uint64_t& offset) {
    GgufEntry out;
    const size_t at = in_.offset();
    out.name = string("a tensor's name");
    if (out.name.empty() || out.name.size() >= kMaxTensorName)
      fail("a tensor's name has a wrong length", at, fmt::format("1 to {} bytes", kMaxTensorName - 1),
           std::to_string(out.name.size()));
    part_ = "tensor " + out.name;
    const auto rank = in_.read<uint32_t>("the number of dimensions");
    if (rank < 1 || rank > kMaxRank)
      fail("a tensor has 1 to 4 dimensions", in_.offset() - 4, "1 to 4", std::to_string(rank));
    int64_t elements = 1;  // an empty dimension counts as one, so that no part of the product overflows either
    for (uint32_t d = 0; d < rank; ++d) {
      const auto n = in_.read<int64_t>("a dimension");
      if (n < 0 || __builtin_mul_overflow(elements, std::max<int64_t>(n, 1), &elements))
        fail("the dimensions' product overflows or is negative", in_.offset() - 8, "less than 2^63 elements",
             std::to_string(n));
      out.shape.insert(out.shape.begin(), n);
    }
    out.type = type(in_.read<int32_t>("a tensor's type"));
    if (out.shape.back() % out.type->columns != 0)
      fail("the first dimension is no multiple of the type's block", in_.offset() - 4,
           fmt::format("a multiple of {} for {}", out.type->columns, out.type->name), std::to_string(out.shape.back()));
    if (elements / out.type->columns > INT64_MAX / 2 / out.type->bytes)
      fail("the tensor's size overflows", in_.offset() - 4, "less than 2^62 bytes", "");
    offset = in_.read<uint64_t>("a tensor's offset");
    return out;
  }

  const GgmlTypeInfo* type(int32_t id) {
    if (const GgmlTypeInfo* known = find_ggml_type(id)) return known;
    fail("the tensor's type is unknown or was removed from the format", in_.offset() - 4, "a type of GGUF version 3",
         std::to_string(id), "convert the model again with current tools");
  }

  // Every offset must be where the padded tensors before it end: no holes, no overlap, no other order.
  void place(std::vector<GgufEntry>& entries, const std::vector<uint64_t>& offsets) {
    const uint64_t start = padded(in_.offset(), alignment_);
    if (start > bytes_.size() && !entries.empty())
      fail("the file ends before its data", in_.offset(), fmt::format("{} bytes", start), std::to_string(bytes_.size()),
           "the file is truncated; fetch it again");
    const uint64_t available = bytes_.size() - std::min<uint64_t>(start, bytes_.size());
    uint64_t end = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      part_ = "tensor " + entries[i].name;
      const uint64_t size = ggml_bytes(*entries[i].type, entries[i].shape);
      if (offsets[i] != end)
        fail(offsets[i] < end ? "the tensor overlaps the one before it" : "there is a hole before the tensor",
             start + std::min(end, available), fmt::format("data offset {}", end), std::to_string(offsets[i]));
      if (end > available || size > available - end)
        fail("the tensor ends beyond the file", start + std::min(end, available), fmt::format("{} bytes", size),
             fmt::format("{} left", available - std::min(end, available)), "the file is truncated; fetch it again");
      entries[i].bytes = bytes_.subspan(start + end, size);
      end = padded(end + size, alignment_);
    }
  }

  [[noreturn]] void fail(std::string what, uint64_t at, std::string expected, std::string got,
                         std::string remedy = "the file is damaged or was written by a faulty tool; fetch it again") {
    throw Error({.what = std::move(what),
                 .where = fmt::format("{}{}{} at byte {}", file_, part_.empty() ? "" : ", ", part_, at),
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .remedy = std::move(remedy)});
  }

  const std::string& file_;
  std::span<const std::byte> bytes_;
  ByteReader in_;
  std::string part_;  // what is being read
  int64_t tensors_ = 0, keys_ = 0;
  uint64_t alignment_ = kGgufAlignment;
};

}  // namespace

std::span<const GgmlTypeInfo> ggml_types() { return kTypes; }

const GgmlTypeInfo* find_ggml_type(int id) {
  const auto at = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.id == id; });
  return at == std::end(kTypes) ? nullptr : at;
}

const GgmlTypeInfo* find_ggml_type(std::string_view name) {
  const auto at = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.name == name; });
  return at == std::end(kTypes) ? nullptr : at;
}

uint64_t ggml_bytes(const GgmlTypeInfo& type, const std::vector<int64_t>& shape) {
  uint64_t elements = 1;
  for (const int64_t n : shape) elements *= static_cast<uint64_t>(n);
  return elements / static_cast<uint64_t>(type.columns) * static_cast<uint64_t>(type.bytes);
}

std::vector<std::filesystem::path> gguf_parts(const std::filesystem::path& any) {
  constexpr std::string_view kTail = "-00001-of-00001.gguf";
  const std::string name = any.filename().string();
  if (name.size() <= kTail.size()) return {};
  const std::string tail = name.substr(name.size() - kTail.size());
  int64_t numbers[2] = {};
  for (size_t i = 0; i < tail.size(); ++i) {
    const bool digit = kTail[i] >= '0' && kTail[i] <= '9';
    if (digit ? tail[i] < '0' || tail[i] > '9' : tail[i] != kTail[i]) return {};
    if (digit) numbers[i / 10] = 10 * numbers[i / 10] + (tail[i] - '0');
  }
  if (numbers[0] < 1 || numbers[0] > numbers[1]) return {};
  std::vector<std::filesystem::path> parts;
  const std::string stem = name.substr(0, name.size() - kTail.size());
  for (int64_t i = 1; i <= numbers[1]; ++i)
    parts.push_back(any.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", stem, i, numbers[1]));
  return parts;
}

std::shared_ptr<const GgufFile> GgufFile::open(const std::filesystem::path& path) {
  auto file = std::make_shared<GgufFile>();
  file->file_ = MappedFile::open(path);
  const std::string name = path.string();
  Reader reader(name, file->file_->bytes());
  file->version_ = reader.read_header();
  reader.read_metadata(file->metadata_);
  reader.read_tensors(file->entries_);
  return file;
}

}  // namespace pare
