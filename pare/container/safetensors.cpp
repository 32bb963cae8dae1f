#include "pare/container/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "pare/base/byte_reader.h"
#include "pare/base/error.h"

namespace pare {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // as the reference
constexpr size_t kMaxRank = 16, kMaxDepth = 16;

// One entry of the header as written, nothing believed yet.
struct RawEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape, offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Walks the events of the JSON parser: no tree is built, so memory stays in proportion to the entries, and every value
// is checked where it stands. Depth 1 holds the names, depth 2 the fields of an entry, depth 3 the numbers of an array.
class HeaderEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderEvents(const std::string& file, std::vector<RawEntry>& entries, std::map<std::string, std::string>& metadata)
      : file_(file), entries_(entries), metadata_(metadata) {}

  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("true or false"); }
  bool number_integer(number_integer_t value) override { return scalar(fmt::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return scalar(text); }
  bool binary(binary_t&) override { return scalar("binary"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (!numbers_) return scalar(fmt::to_string(value));
    if (numbers_->size() >= kMaxRank) fail("too many numbers", fmt::format("at most {}", kMaxRank), "more");
    numbers_->push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      metadata_[key_] = value;
    } else if (depth_ == 2 && key_ == "dtype") {
      entries_.back().dtype = value;
      entries_.back().has_dtype = true;
    } else {
      return scalar(fmt::format("\"{}\"", value));
    }
    return true;
  }

  bool start_object(size_t) override {
    if (depth_ > 1) scalar("an object");
    if (depth_ == 1) fields_.clear();
    if (depth_ == 1 && !in_metadata_) entries_.push_back({name_, {}, {}, {}, false, false, false});
    return enter();
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      name_ = key;
      in_metadata_ = key == "__metadata__";
      if (!names_.insert(key).second) fail("the header has this key twice", "each name once", key);
    } else if (depth_ == 2) {
      key_ = key;
      if (!fields_.insert(key).second) fail("the entry has a key twice", "each field once", key);
    }
    return true;
  }
  bool end_object() override { return leave(); }

  bool start_array(size_t) override {
    if (depth_ == 2 && !in_metadata_ && (key_ == "shape" || key_ == "data_offsets")) {
      RawEntry& entry = entries_.back();
      numbers_ = key_ == "shape" ? &entry.shape : &entry.offsets;
      (key_ == "shape" ? entry.has_shape : entry.has_offsets) = true;
    } else {
      scalar("an array");
    }
    return enter();
  }
  bool end_array() override {
    numbers_ = nullptr;
    return leave();
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    throw Error({.what = "the header is not valid JSON",
                 .where = fmt::format("{} at byte {}", file_, 8 + position),
                 .got = e.what(),
                 .remedy = "the file is damaged or no safetensors file; fetch it again"});
  }

 private:
  // A value where the format wants another kind; inside fields that the format does not know, anything goes.
  bool scalar(std::string_view got) {
    if (depth_ == 0) fail("the header is not a JSON object", "{…}", got);
    if (depth_ == 1) fail("the entry is not a JSON object", "{\"dtype\":…,\"shape\":…,\"data_offsets\":…}", got);
    if (in_metadata_) fail("__metadata__ holds something else than text", "text for every key", got);
    if (numbers_) fail(fmt::format("\"{}\" holds something else than whole numbers ≥ 0", key_), "whole numbers", got);
    if (depth_ == 2 && (key_ == "shape" || key_ == "data_offsets" || key_ == "dtype"))
      fail(fmt::format("\"{}\" has the wrong kind", key_), key_ == "dtype" ? "text" : "a list of whole numbers", got);
    return true;
  }
  bool enter() {
    if (++depth_ > kMaxDepth) fail("the header is nested too deeply", fmt::format("at most {} levels", kMaxDepth), "");
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }
  [[noreturn]] void fail(std::string_view what, std::string_view expected, std::string_view got) const {
    throw Error({.what = std::string(what),
                 .where = name_.empty() ? file_ + ", header" : fmt::format("{}, tensor {}", file_, name_),
                 .expected = std::string(expected),
                 .got = std::string(got.substr(0, 200)),
                 .remedy = "the file is damaged or was written by a faulty tool; fetch it again"});
  }

  const std::string& file_;
  std::vector<RawEntry>& entries_;
  std::map<std::string, std::string>& metadata_;
  size_t depth_ = 0;
  bool in_metadata_ = false;
  std::string name_, key_;
  std::unordered_set<std::string> names_, fields_;
  std::vector<uint64_t>* numbers_ = nullptr;
};

class Reader {
 public:
  Reader(const std::string& file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

  void read(std::vector<SafetensorsEntry>& entries, std::map<std::string, std::string>& metadata) {
    const std::string_view header = read_header();
    std::vector<RawEntry> raw;
    HeaderEvents events(file_, raw, metadata);
    nlohmann::json::sax_parse(header, &events);
    sort_by_offset(raw);
    uint64_t end = 0;
    entries.reserve(raw.size());
    for (const RawEntry& r : raw) entries.push_back(check(r, end));
    if (end != data_.size())
      throw Error({.what = end < data_.size() ? "the file has bytes that belong to no tensor"
                                              : "the tensors end beyond the file",
                   .where = file_,
                   .expected = fmt::format("{} bytes of data", end),
                   .got = fmt::format("{}", data_.size()),
                   .remedy = "the file is damaged or incomplete; fetch it again"});
  }

 private:
  std::string_view read_header() {
    ByteReader reader(bytes_, file_);
    const auto length = reader.read<uint64_t>("the length of the safetensors header");
    if (length > kMaxHeader || length > reader.left())
      throw Error({.what = "the header's length cannot be right",
                   .where = file_ + " at byte 0",
                   .expected = fmt::format("at most {} (the file's size less 8, never above {})",
                                           std::min<uint64_t>(kMaxHeader, reader.left()), kMaxHeader),
                   .got = fmt::format("{}", length),
                   .remedy = "the file is truncated or no safetensors file; fetch it again"});
    const auto header = reader.take(length, "the header");
    data_ = bytes_.subspan(reader.offset());
    return {reinterpret_cast<const char*>(header.data()), header.size()};
  }

  void sort_by_offset(std::vector<RawEntry>& raw) const {
    for (const RawEntry& r : raw) {
      if (!r.has_dtype || !r.has_shape || !r.has_offsets)
        fail(r, "the entry lacks a field", "dtype, shape and data_offsets",
             !r.has_dtype   ? "no dtype"
             : !r.has_shape ? "no shape"
                            : "no data_offsets");
      if (r.offsets.size() != 2) fail(r, "data_offsets are no pair", "[begin, end]", fmt::format("{}", r.offsets));
    }
    std::stable_sort(raw.begin(), raw.end(),
                     [](const RawEntry& a, const RawEntry& b) { return a.offsets < b.offsets; });
  }

  // `end` is where the tensor before ended; it moves to this one's end.
  SafetensorsEntry check(const RawEntry& r, uint64_t& end) const {
    SafetensorsEntry out;
    out.name = r.name;
    const auto dtype = dtype_from_safetensors(r.dtype);
    if (!dtype) fail(r, "the dtype is unknown", "F32, F16, BF16, I8, …", r.dtype);
    out.dtype = *dtype;
    const uint64_t size = bytes_of(r, info(*dtype).bits);
    const uint64_t begin = r.offsets[0], stop = r.offsets[1];
    if (begin > stop || stop > data_.size())
      fail(r, "data_offsets point outside the file", fmt::format("0 ≤ begin ≤ end ≤ {}", data_.size()),
           fmt::format("[{}, {}]", begin, stop));
    if (stop - begin != size)
      fail(r, "data_offsets do not fit the shape",
           fmt::format("{} bytes for {} {}", size, r.dtype, fmt::format("{}", r.shape)),
           fmt::format("{} bytes", stop - begin));
    if (begin != end)
      fail(r, begin < end ? "the tensor overlaps the one before it" : "there is a hole before the tensor",
           fmt::format("begin {}", end), fmt::format("{}", begin));
    end = stop;
    for (const uint64_t n : r.shape) out.shape.push_back(static_cast<int64_t>(n));
    out.bytes = data_.subspan(begin, size);
    return out;
  }

  uint64_t bytes_of(const RawEntry& r, int bits) const {
    uint64_t count = 1, total_bits = 0;
    bool fits = true;
    for (const uint64_t n : r.shape)
      fits = fits && n <= uint64_t{INT64_MAX} && !__builtin_mul_overflow(count, n, &count);
    fits = fits && !__builtin_mul_overflow(count, static_cast<uint64_t>(bits), &total_bits);
    if (!fits) fail(r, "the shape's product overflows", "less than 2^64 bits", fmt::format("{}", r.shape));
    if (total_bits % 8 != 0)
      fail(r, "the tensor is not a whole number of bytes", "a multiple of 8 bits", fmt::format("{} bits", total_bits));
    return total_bits / 8;
  }

  [[noreturn]] void fail(const RawEntry& r, std::string_view what, std::string expected, std::string got) const {
    const auto offset = !r.offsets.empty() ? fmt::format(" at data byte {}", r.offsets.front()) : "";
    throw Error({.what = std::string(what),
                 .where = fmt::format("{}, tensor {}{}", file_, r.name, offset),
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .remedy = "the file is damaged or incomplete; fetch it again"});
  }

  const std::string& file_;
  std::span<const std::byte> bytes_, data_;
};

}  // namespace

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  auto file = std::make_shared<SafetensorsFile>();
  file->file_ = MappedFile::open(path);
  Reader(path.string(), file->file_->bytes()).read(file->entries_, file->metadata_);
  return file;
}

}  // namespace pare
