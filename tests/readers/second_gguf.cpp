// GGUF versions 2 and 3.
//
//   | "GGUF" | u32 version | i64 tensors | i64 pairs | pairs… | tensor entries… | zeros | data |
//   pair:         | string key | i32 type | value |          string: | u64 length | bytes |
//   tensor entry: | string name | u32 n | i64 ne[n], fastest first | i32 type | u64 offset into data |
//
// `data` begins at a multiple of the alignment (general.alignment, 32 when absent); so does every tensor in it.
#include <array>
#include <cmath>
#include <stdexcept>

#include "tests/readers/second_blocks.h"
#include "tests/readers/second_bytes.h"
#include "tests/readers/second_reader.h"

namespace pare::test {
namespace {

using nlohmann::json;

std::string read_string(Cursor& file) {
  const uint64_t length = file.read<uint64_t>();
  return file.take(length);
}

json read_value(Cursor& file, int32_t type) {
  switch (type) {
    case 0:
      return file.read<uint8_t>();
    case 1:
      return file.read<int8_t>();
    case 2:
      return file.read<uint16_t>();
    case 3:
      return file.read<int16_t>();
    case 4:
      return file.read<uint32_t>();
    case 5:
      return file.read<int32_t>();
    case 6:
      return file.read<float>();
    case 7:
      return file.read<uint8_t>() != 0;
    case 8:
      return read_string(file);
    case 10:
      return file.read<uint64_t>();
    case 11:
      return file.read<int64_t>();
    case 12:
      return file.read<double>();
    case 9: {
      const int32_t element = file.read<int32_t>();
      const uint64_t count = file.read<uint64_t>();
      if (element == 9) throw std::runtime_error("GGUF: an array of arrays");
      json values = json::array();
      for (uint64_t i = 0; i < count; ++i) values.push_back(read_value(file, element));
      return values;
    }
    default:
      throw std::runtime_error("GGUF: value type " + std::to_string(type));
  }
}

struct Type {
  int id;
  const char* name;
  int weights, bytes;  // of one block
};
constexpr Type kTypes[] = {
    {0, "f32", 1, 4},         {1, "f16", 1, 2},        {2, "q4_0", 32, 18},      {3, "q4_1", 32, 20},
    {6, "q5_0", 32, 22},      {7, "q5_1", 32, 24},     {8, "q8_0", 32, 34},      {10, "q2_k", 256, 84},
    {11, "q3_k", 256, 110},   {12, "q4_k", 256, 144},  {13, "q5_k", 256, 176},   {14, "q6_k", 256, 210},
    {16, "iq2_xxs", 256, 66}, {17, "iq2_xs", 256, 74}, {18, "iq3_xxs", 256, 98}, {19, "iq1_s", 256, 50},
    {21, "iq3_s", 256, 110},  {22, "iq2_s", 256, 82},  {29, "iq1_m", 256, 56},   {20, "iq4_nl", 32, 18},
    {23, "iq4_xs", 256, 136}, {24, "i8", 1, 1},        {25, "i16", 1, 2},        {26, "i32", 1, 4},
    {27, "i64", 1, 8},        {28, "f64", 1, 8},       {30, "bf16", 1, 2},       {34, "tq1_0", 256, 54},
    {35, "tq2_0", 256, 66},   {39, "mxfp4", 32, 17},   {40, "nvfp4", 64, 36},    {41, "q1_0", 128, 18},
    {42, "q2_0", 64, 18}};

Type type_of(int id) {
  for (const Type& type : kTypes)
    if (type.id == id) return type;
  throw std::runtime_error("GGUF: tensor type " + std::to_string(id));
}

float value_in_block(const std::string& type, int weights, const std::string& block, int e) {
  return weights == 1 ? plain_value(type, block, 0) : block_value(type, block, e);
}

struct Entry {
  std::string name;
  std::vector<int64_t> shape;
  Type type;
  uint64_t offset;
};

struct Header {
  json metadata = json::object();
  std::vector<Entry> entries;
  uint64_t data_begin = 0, alignment = 32;
};

Entry read_entry(Cursor& file) {
  Entry entry;
  entry.name = read_string(file);
  const uint32_t dimensions = file.read<uint32_t>();
  if (dimensions < 1 || dimensions > 4) throw std::runtime_error("GGUF: number of dimensions of " + entry.name);
  for (uint32_t i = 0; i < dimensions; ++i) entry.shape.insert(entry.shape.begin(), file.read<int64_t>());
  entry.type = type_of(file.read<int32_t>());
  entry.offset = file.read<uint64_t>();
  if (entry.shape.back() % entry.type.weights != 0) throw std::runtime_error("GGUF: a broken block in " + entry.name);
  return entry;
}

Header read_header(Cursor& file) {
  Header header;
  if (file.take(4) != "GGUF") throw std::runtime_error("GGUF: no magic");
  const uint32_t version = file.read<uint32_t>();
  if (version != 2 && version != 3) throw std::runtime_error("GGUF: version " + std::to_string(version));
  const int64_t tensors = file.read<int64_t>(), pairs = file.read<int64_t>();
  for (int64_t i = 0; i < pairs; ++i) {
    const std::string key = read_string(file);
    if (header.metadata.contains(key)) throw std::runtime_error("GGUF: key " + key + " twice");
    const int32_t type = file.read<int32_t>();
    header.metadata[key] = read_value(file, type);
  }
  for (int64_t i = 0; i < tensors; ++i) header.entries.push_back(read_entry(file));
  header.alignment = header.metadata.value("general.alignment", uint64_t{32});
  header.data_begin = (file.offset() + header.alignment - 1) / header.alignment * header.alignment;
  return header;
}

uint64_t blocks_of(const Entry& entry) { return count_of(entry.shape) / static_cast<uint64_t>(entry.type.weights); }

SecondTensor read_tensor(const Entry& entry, const std::string& stored) {
  SecondTensor tensor{entry.name, entry.shape, entry.type.name, {}, stored};
  const auto block_bytes = static_cast<size_t>(entry.type.bytes);
  for (size_t at = 0; at < stored.size(); at += block_bytes) {
    const std::string block = stored.substr(at, block_bytes);
    for (int e = 0; e < entry.type.weights; ++e)
      tensor.values.push_back(value_in_block(tensor.type, entry.type.weights, block, e));
  }
  return tensor;
}

}  // namespace

SecondTensors read_gguf(const std::filesystem::path& path) {
  Cursor file(whole_file(path), path.string());
  const Header header = read_header(file);
  SecondTensors tensors;
  uint64_t expected_offset = 0;  // tensors follow each other in the order of the list, each padded
  for (const Entry& entry : header.entries) {
    if (entry.offset != expected_offset) throw std::runtime_error("GGUF: a hole or an overlap before " + entry.name);
    const uint64_t bytes = blocks_of(entry) * static_cast<uint64_t>(entry.type.bytes);
    file.seek(header.data_begin + entry.offset);
    if (!tensors.emplace(entry.name, read_tensor(entry, file.take(bytes))).second)
      throw std::runtime_error("GGUF: tensor " + entry.name + " twice");
    expected_offset += (bytes + header.alignment - 1) / header.alignment * header.alignment;
  }
  if (file.size() != header.data_begin + expected_offset) throw std::runtime_error("GGUF: the file's size");
  return tensors;
}

json read_gguf_metadata(const std::filesystem::path& path) {
  Cursor file(whole_file(path), path.string());
  return read_header(file).metadata;
}

}  // namespace pare::test
