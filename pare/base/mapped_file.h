// A file mapped read-only. Readers keep spans into it; `forget` gives pages back so that a model larger than memory
// can be walked through.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace pare {

class MappedFile {
 public:
  // Throws Error when the file is missing, unreadable or not a regular file. An empty file maps to an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  // Bytes made by `fill`, in memory that behaves as a mapped file: forget_pages does not lose them.
  static std::shared_ptr<const MappedFile> in_memory(size_t size,
                                                     const std::function<void(std::span<std::byte>)>& fill);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

// Tells the system that these mapped pages are not needed again soon: they leave resident memory and are read back
// from the file if touched. `bytes` may be any part of a MappedFile.
void forget_pages(std::span<const std::byte> bytes);
// Asks the system to start reading these mapped pages.
void prefetch_pages(std::span<const std::byte> bytes);

// The whole file as text; throws Error when it is larger than `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, size_t limit = size_t{1} << 30);

}  // namespace pare
