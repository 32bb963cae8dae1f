// What the machine has left.
#pragma once

#include <cstdint>
#include <filesystem>

namespace pare {

int64_t peak_memory_bytes();       // largest resident size of this process so far
int64_t current_memory_bytes();    // resident size now
void reset_peak_memory();          // where the kernel allows it (Linux: /proc/self/clear_refs)
int64_t available_memory_bytes();  // what could be used without swapping; honours the cgroup's limit
int64_t free_disk_bytes(const std::filesystem::path& path);  // of the file system that holds `path` or its folder

}  // namespace pare
