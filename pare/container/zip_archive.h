// A ZIP archive whose entries are stored, not compressed: each is a span of the mapped file. Sizes come from the
// central directory, because writers that stream leave them out of the local headers. Source: APPNOTE 6.3, formats.md
// §5.1.
//
//   { local header: "PK\3\4" … | name | extra | data } ×
//   { central header: "PK\1\2" … sizes, offset of the local header | name | extra | comment } ×
//   [ ZIP64 end record "PK\6\6" | ZIP64 locator "PK\6\7" ] | end record "PK\5\6": count, size and offset of the
//   directory
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

namespace pare {

inline constexpr std::string_view kZipStart = "PK\x03\x04";

class ZipArchive {
 public:
  // Views into `file`, which the caller keeps alive. `where` is the file's name in errors. Throws Error for archives
  // that are damaged, compressed, encrypted, or name an entry twice.
  ZipArchive(std::span<const std::byte> file, std::string where);
  const std::unordered_map<std::string_view, std::span<const std::byte>>& entries() const { return entries_; }
  const std::span<const std::byte>* find(std::string_view name) const;  // null: no such entry

 private:
  struct Directory;
  struct Header;
  Directory find_directory() const;
  Header read_header(std::span<const std::byte> rest) const;
  std::span<const std::byte> data_of(const Header& header, uint64_t directory_begin) const;
  [[noreturn]] void fail(std::string what, std::string expected, std::string got, uint64_t at) const;

  std::span<const std::byte> file_;
  std::string where_;
  std::unordered_map<std::string_view, std::span<const std::byte>> entries_;
};

}  // namespace pare
