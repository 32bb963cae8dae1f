// PyTorch checkpoints made by hand from formats.md §5: a pickle, opcode by opcode, inside a zip archive.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/container/files.h"

namespace pare::test {

// Opcodes one after the other; every function returns the bytes that leave one value on the stack.
namespace pickle {
inline std::string text(const std::string& s) { return "X" + raw<uint32_t>(static_cast<uint32_t>(s.size())) + s; }
inline std::string integer(int64_t v) { return "\x8a\x08" + raw<int64_t>(v); }
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string out = "(";
  for (const std::string& item : items) out += item;
  return out + "t";
}
inline std::string integers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const int64_t v : values) items.push_back(integer(v));
  return tuple(items);
}
inline std::string call(const std::string& function, const std::vector<std::string>& arguments) {
  return function + tuple(arguments) + "R";
}
inline std::string ordered_dict() { return call(global("collections", "OrderedDict"), {}); }
inline std::string storage(const std::string& type, const std::string& key, int64_t count) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(count)}) + "Q";
}
inline std::string tensor(const std::string& stored, int64_t offset, const std::vector<int64_t>& shape,
                          const std::vector<int64_t>& strides) {
  return call(global("torch._utils", "_rebuild_tensor_v2"),
              {stored, integer(offset), integers(shape), integers(strides), "\x89", ordered_dict()});
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "}(";
  for (const auto& [key, value] : items) out += text(key) + value;
  return out + "u";
}
inline std::string whole(const std::string& value) { return "\x80\x02" + value + "."; }
}  // namespace pickle

struct ZipEntry {
  std::string name, data;
  uint16_t method = 0, flags = 0;
  std::string local_extra = {};
};

// As torch.save writes it: local headers without sizes, everything of use in the directory.
inline std::string zip(const std::vector<ZipEntry>& entries) {
  std::string out, directory;
  for (const ZipEntry& e : entries) {
    const auto name = static_cast<uint16_t>(e.name.size()), extra = static_cast<uint16_t>(e.local_extra.size());
    const auto size = static_cast<uint32_t>(e.data.size()), at = static_cast<uint32_t>(out.size());
    out += "PK\x03\x04" + raw<uint16_t>(20) + raw(e.flags) + raw(e.method) + std::string(16, '\0') + raw(name) +
           raw(extra) + e.name + e.local_extra + e.data;
    directory += "PK\x01\x02" + raw<uint16_t>(20) + raw<uint16_t>(20) + raw(e.flags) + raw(e.method) +
                 std::string(8, '\0') + raw(size) + raw(size) + raw(name) + raw<uint16_t>(0) + raw<uint16_t>(0) +
                 std::string(8, '\0') + raw(at) + e.name;
  }
  const auto count = static_cast<uint16_t>(entries.size());
  return out + directory + "PK\x05\x06" + std::string(4, '\0') + raw(count) + raw(count) +
         raw(static_cast<uint32_t>(directory.size())) + raw(static_cast<uint32_t>(out.size())) + raw<uint16_t>(0);
}

// A checkpoint: its pickle and its storages.
inline std::string torch_file(const std::string& pickled,
                              const std::vector<std::pair<std::string, std::string>>& storages) {
  std::vector<ZipEntry> entries = {{.name = "archive/data.pkl", .data = pickled}};
  for (const auto& [key, data] : storages)
    entries.push_back({.name = "archive/data/" + key, .data = data, .local_extra = "FB" + raw<uint16_t>(3) + "ZZZ"});
  entries.push_back({.name = "archive/version", .data = "3\n"});
  return zip(entries);
}

}  // namespace pare::test
