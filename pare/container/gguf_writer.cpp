#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <mutex>
#include <stdexcept>
#include <type_traits>
#include <unordered_map>

#include "pare/base/error.h"
#include "pare/container/gguf.h"

namespace pare {
namespace {

constexpr uint32_t kVersion = 3;
constexpr size_t kLongestName = 63;
constexpr int32_t kString = 8, kArray = 9;

// Where T stands among the alternatives of MetaValue.
template <class T, size_t kIndex = 0>
constexpr int32_t alternative() {
  if constexpr (std::is_same_v<T, std::variant_alternative_t<kIndex, MetaValue>>)
    return static_cast<int32_t>(kIndex);
  else
    return alternative<T, kIndex + 1>();
}
// The format's id of a plain value: 0…7 and 10…12 in the order of the alternatives, strings at 8, arrays at 9.
template <class T>
constexpr int32_t value_type() {
  if constexpr (std::is_same_v<T, std::string>)
    return kString;
  else
    return alternative<T>() < kString ? alternative<T>() : alternative<T>() + 2;
}

void put_bytes(std::string& out, const void* data, size_t size) { out.append(static_cast<const char*>(data), size); }
template <class T>
void put(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T>);
  put_bytes(out, &value, sizeof value);
}
void put(std::string& out, const std::string& text) {
  put<uint64_t>(out, text.size());
  out += text;
}
void put(std::string& out, bool value) { put<uint8_t>(out, value ? 1 : 0); }

template <class T>
void put_value(std::string& out, const T& value) {
  put<int32_t>(out, value_type<T>());
  put(out, value);
}
template <class T>
void put_value(std::string& out, const std::vector<T>& values) {
  put<int32_t>(out, kArray);
  put<int32_t>(out, value_type<T>());
  put<uint64_t>(out, values.size());
  for (const auto& value : values) put(out, static_cast<const T&>(value));
}

uint64_t alignment_of(const Metadata& metadata) {
  const auto given = metadata.integer("general.alignment");
  return given ? static_cast<uint64_t>(*given) : kGgufAlignment;
}

uint64_t padded(uint64_t size, uint64_t alignment) { return (size + alignment - 1) / alignment * alignment; }

}  // namespace

struct GgufWriter::Layout {
  struct Place {
    uint64_t offset = 0, size = 0;  // in the file
    bool written = false;
  };
  std::string header;  // padded
  std::unordered_map<std::string, Place> places;
  uint64_t file_size = 0;
  std::mutex mutex;

  Layout(const Metadata& metadata, const std::vector<GgufSlot>& slots) {
    const uint64_t alignment = alignment_of(metadata);
    assert(alignment > 0 && (alignment & (alignment - 1)) == 0);
    header = "GGUF";
    put<uint32_t>(header, kVersion);
    put<int64_t>(header, static_cast<int64_t>(slots.size()));
    put<int64_t>(header, static_cast<int64_t>(metadata.entries().size()));
    for (const auto& [key, value] : metadata.entries()) {
      put(header, key);
      std::visit([&](const auto& v) { put_value(header, v); }, value);
    }
    uint64_t end = 0;
    for (const GgufSlot& slot : slots) {
      put_slot(slot, end);
      const uint64_t size = ggml_bytes(*slot.type, slot.shape);
      if (!places.emplace(slot.name, Place{end, size}).second)
        throw std::logic_error("two tensors of one name: " + slot.name);
      end = padded(end + size, alignment);
    }
    header.resize(padded(header.size(), alignment), '\0');
    for (auto& [name, place] : places) place.offset += header.size();
    file_size = header.size() + end;
  }

  void put_slot(const GgufSlot& slot, uint64_t offset) {
    if (slot.name.empty() || slot.name.size() > kLongestName)
      throw Error({.what = "GGUF cannot hold a tensor of this name",
                   .where = slot.name,
                   .expected = fmt::format("1 to {} bytes", kLongestName),
                   .got = std::to_string(slot.name.size())});
    assert(slot.type && !slot.shape.empty() && slot.shape.size() <= 4);
    assert(slot.shape.back() % slot.type->columns == 0);
    put(header, slot.name);
    put<uint32_t>(header, static_cast<uint32_t>(slot.shape.size()));
    for (auto n = slot.shape.rbegin(); n != slot.shape.rend(); ++n) put<int64_t>(header, *n);
    put<int32_t>(header, slot.type->id);
    put<uint64_t>(header, offset);
  }
};

GgufWriter::GgufWriter(std::filesystem::path path, const Metadata& metadata, std::vector<GgufSlot> slots)
    : layout_(std::make_unique<Layout>(metadata, slots)),
      out_(std::make_unique<OutputFile>(std::move(path), layout_->file_size)) {
  out_->write_at(0, std::as_bytes(std::span(layout_->header)));
}

GgufWriter::~GgufWriter() = default;

uint64_t GgufWriter::file_bytes(const Metadata& metadata, const std::vector<GgufSlot>& slots) {
  return Layout(metadata, slots).file_size;
}

void GgufWriter::add(const std::string& name, std::span<const std::byte> bytes) {
  uint64_t offset = 0;
  {
    const std::lock_guard lock(layout_->mutex);
    const auto place = layout_->places.find(name);
    if (place == layout_->places.end()) throw std::logic_error("no such tensor was planned: " + name);
    if (place->second.written) throw std::logic_error("the tensor is written already: " + name);
    if (place->second.size != bytes.size())
      throw std::logic_error(
          fmt::format("{} has {} bytes where {} were planned", name, bytes.size(), place->second.size));
    place->second.written = true;
    offset = place->second.offset;
  }
  out_->write_at(offset, bytes);
}

void GgufWriter::seal() {
  for (const auto& [name, place] : layout_->places)
    if (!place.written) throw std::logic_error("the tensor was never written: " + name);
  out_->sync();
}

void GgufWriter::commit() {
  seal();
  out_->commit();
}

}  // namespace pare
