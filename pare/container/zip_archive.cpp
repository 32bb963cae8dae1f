#include "pare/container/zip_archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "pare/base/error.h"

namespace pare {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint64_t kLongestComment = 65535;
constexpr uint32_t kElsewhere32 = 0xFFFFFFFF;  // the value is in the ZIP64 record
constexpr uint16_t kExtra64 = 1;

template <class T>
T number(std::span<const std::byte> bytes, uint64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}
std::string_view text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

struct ZipArchive::Directory {
  uint64_t begin = 0, size = 0, entries = 0;
};
struct ZipArchive::Header {
  std::string_view name;
  uint64_t stored = 0, size = 0, local = 0;  // bytes in the file, bytes when unpacked, where the local header stands
  uint16_t flags = 0, method = 0;
  uint64_t length = 0;  // of this header
};

void ZipArchive::fail(std::string what, std::string expected, std::string got, uint64_t at) const {
  throw Error({.what = std::move(what),
               .where = fmt::format("{} at byte {}", where_, at),
               .expected = std::move(expected),
               .got = std::move(got),
               .remedy = "the file is truncated or damaged; fetch it again"});
}

ZipArchive::ZipArchive(std::span<const std::byte> file, std::string where) : file_(file), where_(std::move(where)) {
  const Directory directory = find_directory();
  std::span<const std::byte> rest = file_.subspan(directory.begin, directory.size);
  std::vector<std::pair<uint64_t, uint64_t>> taken;  // [begin, end) of each entry's data
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Header header = read_header(rest);
    rest = rest.subspan(header.length);
    const auto data = data_of(header, directory.begin);
    if (!entries_.emplace(header.name, data).second)
      fail("the archive names an entry twice", "each name once", std::string(header.name), header.local);
    taken.emplace_back(header.local, static_cast<uint64_t>(data.data() - file_.data()) + data.size());
  }
  if (!rest.empty())
    fail("the archive's directory does not end with its last entry", fmt::format("{} entries", directory.entries),
         fmt::format("{} bytes more", rest.size()), directory.begin);
  std::sort(taken.begin(), taken.end());
  for (size_t i = 1; i < taken.size(); ++i)
    if (taken[i].first < taken[i - 1].second)
      fail("two entries of the archive overlap", fmt::format("byte {} or later", taken[i - 1].second),
           std::to_string(taken[i].first), taken[i].first);
}

const std::span<const std::byte>* ZipArchive::find(std::string_view name) const {
  const auto at = entries_.find(name);
  return at == entries_.end() ? nullptr : &at->second;
}

// The end record is the last thing in the file but for a comment, whose length it states.
ZipArchive::Directory ZipArchive::find_directory() const {
  const uint64_t size = file_.size();
  uint64_t end = 0;
  bool found = false;
  for (uint64_t comment = 0; !found && comment <= kLongestComment && kEndBytes + comment <= size; ++comment) {
    end = size - kEndBytes - comment;
    found = number<uint32_t>(file_, end) == kEnd && number<uint16_t>(file_, end + 20) == comment;
  }
  if (!found) fail("the archive has no end record", "a ZIP archive", fmt::format("{} bytes", size), size);
  Directory d{number<uint32_t>(file_, end + 16), number<uint32_t>(file_, end + 12), number<uint16_t>(file_, end + 10)};
  uint64_t limit = end;
  if (end >= kLocatorBytes && number<uint32_t>(file_, end - kLocatorBytes) == kLocator64) {
    const auto at = number<uint64_t>(file_, end - kLocatorBytes + 8);
    if (at > end || end - at < kEnd64Bytes + kLocatorBytes || number<uint32_t>(file_, at) != kEnd64)
      fail("the archive's ZIP64 record is not where it should be", "PK\\6\\6", std::to_string(at), end);
    d = {number<uint64_t>(file_, at + 48), number<uint64_t>(file_, at + 40), number<uint64_t>(file_, at + 32)};
    limit = at;
  }
  if (d.begin > limit || d.size > limit - d.begin || d.entries > d.size / kCentralBytes)
    fail("the archive's directory lies outside the file", fmt::format("at most {} bytes", limit),
         fmt::format("{} entries in {} bytes from {}", d.entries, d.size, d.begin), end);
  return d;
}

ZipArchive::Header ZipArchive::read_header(std::span<const std::byte> rest) const {
  const auto at = static_cast<uint64_t>(rest.data() - file_.data());
  if (rest.size() < kCentralBytes || number<uint32_t>(rest, 0) != kCentral)
    fail("the archive's directory is damaged", "PK\\1\\2", fmt::format("{} bytes left", rest.size()), at);
  const uint64_t name = number<uint16_t>(rest, 28), extra = number<uint16_t>(rest, 30);
  Header h;
  h.length = kCentralBytes + name + extra + number<uint16_t>(rest, 32);
  if (h.length > rest.size())
    fail("an entry of the archive's directory is cut off", fmt::format("{} bytes", h.length),
         fmt::format("{} left", rest.size()), at);
  h.flags = number<uint16_t>(rest, 8);
  h.method = number<uint16_t>(rest, 10);
  h.stored = number<uint32_t>(rest, 20);
  h.size = number<uint32_t>(rest, 24);
  h.local = number<uint32_t>(rest, 42);
  h.name = text(rest.subspan(kCentralBytes, name));

  // Fields of 32 bits that are too small stand, in this order, in the extra field of ZIP64.
  std::span<const std::byte> fields = rest.subspan(kCentralBytes + name, extra);
  while (fields.size() >= 4) {
    const uint64_t length = number<uint16_t>(fields, 2);
    if (length > fields.size() - 4) break;
    std::span<const std::byte> values = fields.subspan(4, length);
    if (number<uint16_t>(fields, 0) == kExtra64)
      for (uint64_t* field : {&h.size, &h.stored, &h.local})
        if (*field == kElsewhere32 && values.size() >= 8) {
          *field = number<uint64_t>(values, 0);
          values = values.subspan(8);
        }
    fields = fields.subspan(4 + length);
  }
  return h;
}

std::span<const std::byte> ZipArchive::data_of(const Header& h, uint64_t directory_begin) const {
  const std::string name(h.name.substr(0, 200));
  if ((h.flags & 1) != 0) fail("an entry of the archive is encrypted", "plain entries", name, h.local);
  if (h.method != 0 || h.stored != h.size)
    throw Error({.what = "an entry of the archive is compressed",
                 .where = fmt::format("{}, entry {}", where_, name),
                 .expected = "stored entries, as torch.save writes them",
                 .got = fmt::format("method {}, {} bytes for {}", h.method, h.stored, h.size),
                 .remedy = "save the model again with torch.save or as safetensors"});
  if (h.local > directory_begin || directory_begin - h.local < kLocalBytes ||
      number<uint32_t>(file_, h.local) != kLocal)
    fail("an entry of the archive is not where its directory says", "PK\\3\\4", name, h.local);
  const uint64_t begin =
      h.local + kLocalBytes + number<uint16_t>(file_, h.local + 26) + number<uint16_t>(file_, h.local + 28);
  if (begin > directory_begin || h.size > directory_begin - begin)
    fail("an entry of the archive lies outside the file", fmt::format("at most {} bytes", directory_begin),
         fmt::format("{} bytes of {} from {}", h.size, name, begin), h.local);
  return file_.subspan(begin, h.size);
}

}  // namespace pare
