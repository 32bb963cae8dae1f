// Memory that a thread keeps from call to call, so that no product allocates or touches fresh pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare {

// At least `floats` floats, lines of 64 bytes; what they held is lost. One buffer per thread and Slot.
template <int Slot>
float* scratch(int64_t floats) {
  constexpr size_t kFloats = 64 / sizeof(float);
  thread_local std::vector<float> memory;
  const auto needed = static_cast<size_t>(floats) + kFloats;
  if (memory.size() < needed) {
    memory = {};  // the old one first: never both
    memory.resize(needed);
  }
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return memory.data() + (64 - address % 64) % 64 / sizeof(float);
}

}  // namespace pare
