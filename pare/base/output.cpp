#include "pare/base/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "pare/base/error.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void throw_errno(const fs::path& path, const char* what, int code) {
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  throw Error({.what = full ? "the disk is full" : what,
               .where = path.string(),
               .got = std::strerror(code),
               .remedy = full ? "free some space or write to another disk; nothing was left behind"
                              : "check the folder and its permissions",
               .code = full ? ExitCode::no_room : ExitCode::bad_input});
}

fs::path folder_of(const fs::path& path) {
  const fs::path folder = path.parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

fs::path temporary_name(const fs::path& path) {
  return folder_of(path) / fmt::format("{}.part-{}", path.filename().string(), ::getpid());
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

void rename_or_throw(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw_errno(to, "cannot move the output into place", errno);
}

// "out/" names the same directory as "out".
fs::path without_trailing_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

OutputFile::OutputFile(fs::path path, uint64_t size) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) throw_errno(path_, "cannot create the output", errno);
  if (size == 0) return;
  int code = ::posix_fallocate(fd_, 0, static_cast<off_t>(size));
  if (code == EOPNOTSUPP || code == EINVAL) code = ::ftruncate(fd_, static_cast<off_t>(size)) == 0 ? 0 : errno;
  if (code != 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
    throw_errno(path_, "cannot reserve the output's space", code);
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path_, "cannot write the output", errno);
    offset += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::append(std::span<const std::byte> bytes) {
  write_at(end_, bytes);
  end_ += bytes.size();
}

void OutputFile::append(std::string_view text) { append(std::as_bytes(std::span(text))); }

void OutputFile::sync() {
  if (::fsync(fd_) != 0) throw_errno(path_, "cannot sync the output", errno);
}

void OutputFile::commit() {
  sync();
  if (::close(fd_) != 0) {
    fd_ = -1;
    throw_errno(path_, "cannot close the output", errno);
  }
  fd_ = -1;
  rename_or_throw(temporary_, path_);
  committed_ = true;
  sync_folder(folder_of(path_));
}

OutputDirectory::OutputDirectory(const fs::path& path, bool overwrite)
    : path_(without_trailing_slash(path)), temporary_(temporary_name(path_)) {
  check_output_path(path_, overwrite);
  std::error_code code;
  fs::remove_all(temporary_, code);
  fs::create_directory(temporary_, code);
  if (code) throw_errno(path_, "cannot create the output directory", code.value());
}

OutputDirectory::~OutputDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void OutputDirectory::commit() {
  sync_folder(temporary_);
  const bool replaces = fs::exists(fs::symlink_status(path_));
  const fs::path old = fs::path(temporary_).concat("-old");
  if (replaces) rename_or_throw(path_, old);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    if (replaces) ::rename(old.c_str(), path_.c_str());
    throw_errno(path_, "cannot move the output into place", code);
  }
  committed_ = true;
  sync_folder(folder_of(path_));
  std::error_code ignored;
  if (replaces) fs::remove_all(old, ignored);
}

void write_file(const fs::path& path, std::string_view text) {
  OutputFile out(path);
  out.append(text);
  out.commit();
}

void check_output_path(const fs::path& path, bool overwrite) {
  if (!overwrite && fs::exists(fs::symlink_status(path)))
    throw Error({.what = "the output exists already",
                 .where = path.string(),
                 .remedy = "choose another name, or pass --force to replace it"});
  const fs::path folder = folder_of(path);
  std::error_code code;
  if (!fs::is_directory(folder, code))
    throw Error({.what = "the output's folder does not exist", .where = folder.string(), .remedy = "create it first"});
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    throw Error({.what = "no permission to write into the output's folder",
                 .where = folder.string(),
                 .got = std::strerror(errno),
                 .remedy = "choose another folder or change its permissions"});
}

}  // namespace pare
