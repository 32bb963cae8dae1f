#include "pare/base/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "pare/base/error.h"

namespace pare {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void throw_errno(const std::filesystem::path& path, const char* what) {
  const int code = errno;
  throw Error({.what = what,
               .where = path.string(),
               .got = std::strerror(code),
               .remedy = code == EACCES ? "check the file's permissions" : "check the path"});
}

std::span<const std::byte> whole_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (first >= last) return {};
  return bytes.subspan(first - begin, last - first);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: a pipe is refused below instead of being waited for; regular files ignore it.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) throw_errno(path, "cannot open the file");
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw_errno(path, "cannot look at the file");
  if (!S_ISREG(status.st_mode))
    throw Error({.what = "not a regular file", .where = path.string(), .remedy = "give a file"});
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(path, {}));
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) throw_errno(path, "cannot map the file");
  return std::shared_ptr<const MappedFile>(new MappedFile(path, {static_cast<const std::byte*>(data), size}));
}

std::shared_ptr<const MappedFile> MappedFile::in_memory(size_t size,
                                                        const std::function<void(std::span<std::byte>)>& fill) {
  const std::filesystem::path name = "memory";
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(name, {}));
  const Descriptor fd(::memfd_create("pare", MFD_CLOEXEC));
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size)) != 0) throw_errno(name, "cannot reserve memory");
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) throw_errno(name, "cannot map memory");
  const auto file =
      std::shared_ptr<const MappedFile>(new MappedFile(name, {static_cast<const std::byte*>(data), size}));
  fill({static_cast<std::byte*>(data), size});
  return file;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void forget_pages(std::span<const std::byte> bytes) {
  const auto pages = whole_pages(bytes);
  if (!pages.empty()) ::madvise(const_cast<std::byte*>(pages.data()), pages.size(), MADV_DONTNEED);
}

void prefetch_pages(std::span<const std::byte> bytes) {
  const auto pages = whole_pages(bytes);
  if (!pages.empty()) ::madvise(const_cast<std::byte*>(pages.data()), pages.size(), MADV_WILLNEED);
}

std::string read_text_file(const std::filesystem::path& path, size_t limit) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  if (bytes.size() > limit)
    throw Error({.what = "the file is too large to be read as text",
                 .where = path.string(),
                 .expected = fmt::format("at most {} bytes", limit),
                 .got = fmt::format("{} bytes", bytes.size())});
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace pare
