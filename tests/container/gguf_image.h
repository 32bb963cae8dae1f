// GGUF files byte by byte, so that every field can lie.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/container/files.h"

namespace pare::test {

struct GgufImage {
  struct Tensor {
    std::string name = "t";
    std::vector<int64_t> ne = {4};
    int32_t type = 0;
    uint64_t offset = 0;
  };
  uint32_t version = 3;
  std::optional<int64_t> tensor_count = {}, key_count = {};
  std::vector<std::string> keys = {};  // key, type and value as bytes
  std::vector<Tensor> tensors = {Tensor{}};
  size_t data_bytes = 128;

  std::string bytes() const {
    std::string out = "GGUF" + raw(version) + raw(tensor_count.value_or(std::ssize(tensors))) +
                      raw(key_count.value_or(std::ssize(keys)));
    for (const std::string& key : keys) out += key;
    for (const Tensor& t : tensors) {
      out += raw_string(t.name) + raw(static_cast<uint32_t>(t.ne.size()));
      for (const int64_t n : t.ne) out += raw(n);
      out += raw(t.type) + raw(t.offset);
    }
    out.resize((out.size() + 31) / 32 * 32);
    return out + std::string(data_bytes, '\1');
  }
};

// formats.md §3.1: three keys, two tensors, 384 bytes, checked with the reference reader.
inline std::string gguf_example() {
  return from_hex(
             "474755460300000002000000000000000300000000000000140000000000000067656e6572616c2e617263686974656374757265"
             "0800000005000000000000006c6c616d61"
             "110000000000000067656e6572616c2e616c69676e6d656e740400000020000000"
             "1500000000000000746f6b656e697a65722e67676d6c2e746f6b656e7309000000080000000200000000000000030000000000000"
             "03c"
             "733e010000000000000061"
             "12000000000000006f75747075745f6e6f726d2e7765696768740100000002000000000000000000000000000000 00000000"
             "1300000000000000626c6b2e302e66666e5f75702e776569676874020000002000000000000000020000000000000002000000"
             "2000000000000000") +
         std::string(12, '\0') + from_hex("0000803f00000040") + std::string(24, '\0') +
         from_hex("402ef258be1379df359bf147ac0268ce248a 40ae53fd9731db852fca640ea842fc9630db") + std::string(28, '\0');
}

}  // namespace pare::test
