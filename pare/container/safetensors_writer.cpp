#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_map>

#include "pare/container/safetensors.h"

namespace pare {
namespace {

constexpr uint64_t kAlignment = 8;  // of the data: the header is padded to it

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

std::string metadata_json(const std::map<std::string, std::string>& metadata) {
  std::string out = "\"__metadata__\":{";
  for (const auto& [key, value] : metadata)
    out += fmt::format("{}{}:{}", out.back() == '{' ? "" : ",", quoted(key), quoted(value));
  return out + "}";
}

}  // namespace

uint64_t slot_bytes(const SafetensorsSlot& slot) {
  uint64_t bits = static_cast<uint64_t>(info(slot.dtype).bits);
  for (const int64_t n : slot.shape) bits *= static_cast<uint64_t>(n);
  return bits / 8;
}

struct SafetensorsWriter::Layout {
  struct Place {
    uint64_t offset = 0, size = 0;  // in the file
    bool written = false;
  };
  std::string header;  // with its length and padding
  std::unordered_map<std::string, Place> places;
  uint64_t file_size = 0;
  std::mutex mutex;

  Layout(std::vector<SafetensorsSlot> slots, const std::map<std::string, std::string>& metadata) {
    std::sort(slots.begin(), slots.end(), [](const SafetensorsSlot& a, const SafetensorsSlot& b) {
      const int wide_a = info(a.dtype).bits, wide_b = info(b.dtype).bits;
      return wide_a != wide_b ? wide_a > wide_b : a.name < b.name;
    });
    std::string json = metadata.empty() ? "{" : "{" + metadata_json(metadata);
    uint64_t end = 0;
    for (const SafetensorsSlot& slot : slots) {
      const uint64_t begin = end;
      end += slot_bytes(slot);
      if (!places.emplace(slot.name, Place{begin, end - begin}).second)
        throw std::logic_error("two tensors of one name: " + slot.name);
      json += fmt::format(R"({}{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json.size() > 1 ? "," : "",
                          quoted(slot.name), info(slot.dtype).safetensors, fmt::join(slot.shape, ","), begin, end);
    }
    json += "}";
    json.resize((json.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
    const uint64_t length = json.size();
    header.assign(reinterpret_cast<const char*>(&length), sizeof length);
    header += json;
    for (auto& [name, place] : places) place.offset += header.size();
    file_size = header.size() + end;
  }
};

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, std::vector<SafetensorsSlot> slots,
                                     const std::map<std::string, std::string>& metadata)
    : layout_(std::make_unique<Layout>(std::move(slots), metadata)),
      out_(std::make_unique<OutputFile>(std::move(path), layout_->file_size)) {
  out_->write_at(0, std::as_bytes(std::span(layout_->header)));
}

SafetensorsWriter::~SafetensorsWriter() = default;

uint64_t SafetensorsWriter::file_bytes(std::vector<SafetensorsSlot> slots,
                                       const std::map<std::string, std::string>& metadata) {
  return Layout(std::move(slots), metadata).file_size;
}

void SafetensorsWriter::add(const std::string& name, std::span<const std::byte> bytes) {
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

void SafetensorsWriter::commit() {
  for (const auto& [name, place] : layout_->places)
    if (!place.written) throw std::logic_error("the tensor was never written: " + name);
  out_->commit();
}

}  // namespace pare
