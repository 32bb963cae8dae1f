// Short pieces already encoded. One slot per hash value, the newest piece wins: no list, no eviction, bounded memory.
//   slot, 64 bytes, one cache line:  | length u8 | count u8 | 30 bytes of text | 8 ids |
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace pare::tok {

class WordCache {
 public:
  static constexpr size_t kMaxText = 30, kMaxIds = 8;

  static bool takes(std::string_view text) { return text.size() <= kMaxText; }
  // Appends the ids of `text` when it is known. takes(text), not empty.
  bool find(std::string_view text, uint64_t hash, std::vector<int32_t>& ids) const {
    const Slot& slot = slots_[index(hash)];
    if (slot.length != text.size() || std::memcmp(slot.text, text.data(), text.size()) != 0) return false;
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
    return true;
  }
  void keep(std::string_view text, uint64_t hash, std::span<const int32_t> ids) {
    if (ids.size() > kMaxIds) return;
    Slot& slot = slots_[index(hash)];
    slot.length = static_cast<uint8_t>(text.size());
    slot.count = static_cast<uint8_t>(ids.size());
    std::memcpy(slot.text, text.data(), text.size());
    std::copy(ids.begin(), ids.end(), slot.ids);
  }

  static uint64_t hash(std::string_view text) {
    uint64_t h = text.size() * 0x9e3779b97f4a7c15u;
    size_t at = 0;
    for (; at + 8 <= text.size(); at += 8) h = mix(h ^ load(text.data() + at, 8));
    return mix(h ^ load(text.data() + at, text.size() - at));
  }

 private:
  static constexpr int kBits = 15;
  struct alignas(64) Slot {
    uint8_t length = 0, count = 0;
    char text[kMaxText];
    int32_t ids[kMaxIds];
  };
  static_assert(sizeof(Slot) == 64);

  static uint64_t load(const char* from, size_t bytes) {
    uint64_t value = 0;
    if (bytes > 0) std::memcpy(&value, from, bytes);
    return value;
  }
  static uint64_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 29;
  }
  static size_t index(uint64_t hash) { return static_cast<size_t>((hash * 0x9e3779b97f4a7c15u) >> (64 - kBits)); }

  std::vector<Slot> slots_ = std::vector<Slot>(size_t{1} << kBits);
};

}  // namespace pare::tok
