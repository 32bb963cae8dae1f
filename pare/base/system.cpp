#include "pare/base/system.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace pare {
namespace {

// Value in bytes of a "Name:  123 kB" line.
int64_t line_of(const char* path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  return 0;
}

int64_t number_in(const char* path) {
  std::ifstream in(path);
  int64_t value = -1;
  in >> value;
  return in ? value : -1;
}

}  // namespace

int64_t peak_memory_bytes() { return line_of("/proc/self/status", "VmHWM"); }
int64_t current_memory_bytes() { return line_of("/proc/self/status", "VmRSS"); }
void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

int64_t available_memory_bytes() {
  int64_t available = line_of("/proc/meminfo", "MemAvailable");
  const int64_t limit = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) available = std::min(available, limit - used);
  return available;
}

int64_t free_disk_bytes(const std::filesystem::path& path) {
  std::filesystem::path folder = std::filesystem::absolute(path);
  while (!std::filesystem::exists(folder) && folder.has_relative_path()) folder = folder.parent_path();
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) return 0;
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

}  // namespace pare
