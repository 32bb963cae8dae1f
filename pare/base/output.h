// Outputs that appear whole or not at all: written under a temporary name beside the target, synced, then renamed.
// Destroying one that was not committed removes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace pare {

class OutputFile {
 public:
  // Creates `<path>.part-<pid>` with `size` bytes reserved on disk (0: grows as written). Throws Error: no_room when
  // the disk cannot hold it, bad_input when the folder is missing or not writable.
  explicit OutputFile(std::filesystem::path path, uint64_t size = 0);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write_at(uint64_t offset, std::span<const std::byte> bytes);  // thread-safe for disjoint ranges
  void append(std::span<const std::byte> bytes);
  void append(std::string_view text);
  void sync();    // data reaches the disk; write-back pages leave the cache's dirty list
  void commit();  // sync, rename to `path`
  const std::filesystem::path& temporary_path() const { return temporary_; }

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
  uint64_t end_ = 0;
  bool committed_ = false;
};

class OutputDirectory {
 public:
  // Creates `<path>.part-<pid>/`. Throws Error when `path` exists and `overwrite` is false.
  OutputDirectory(const std::filesystem::path& path, bool overwrite);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  std::filesystem::path file(std::string_view name) const { return temporary_ / name; }  // write files here
  void commit();  // syncs the folder and renames it; an old directory at `path` is replaced only then

 private:
  std::filesystem::path path_, temporary_;
  bool committed_ = false;
};

// Writes a small file whole or not at all.
void write_file(const std::filesystem::path& path, std::string_view text);

// Throws Error when `path` exists and `overwrite` is false, or when its folder does not exist or cannot be written.
void check_output_path(const std::filesystem::path& path, bool overwrite);

}  // namespace pare
