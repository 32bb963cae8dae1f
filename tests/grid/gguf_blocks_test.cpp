// GGUF blocks against the reference's vectors and files, and against a second reader written from the value formulas
// of formats.md §3.3, one element at a time.
#include "pare/container/gguf_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/base/sha256.h"
#include "tests/grid/grids.h"
#include "tests/readers/second_blocks.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

using namespace test;
using Bytes = std::vector<std::byte>;

// Where a type keeps numbers that may not be infinite or NaN, and which bit patterns would be.
enum class Number { f16, e8m0, ue4m3, f16_in_nibbles };
struct Type {
  std::string name;
  Number number;
  std::vector<int64_t> at;  // bytes within the block
  std::string file;         // of golden/gguf, that holds it
};
const std::vector<Type> kTypes = {
    {"q4_0", Number::f16, {0}, "a-q4_0"},
    {"q8_0", Number::f16, {0}, "a-q8_0"},
    {"q4_k", Number::f16, {0, 2}, "a-q4_k_m"},
    {"q6_k", Number::f16, {208}, "a-q6_k"},
    {"iq4_nl", Number::f16, {0}, "a-iq4_nl"},
    {"mxfp4", Number::e8m0, {0}, "a-mxfp4_moe.pure"},
    {"q4_1", Number::f16, {0, 2}, "a-q4_1"},
    {"q5_0", Number::f16, {0}, "a-q5_0"},
    {"q5_1", Number::f16, {0, 2}, "a-q5_1"},
    {"q2_0", Number::f16, {0}, "a-q2_0"},
    {"tq1_0", Number::f16, {52}, "a-tq1_0"},
    {"tq2_0", Number::f16, {64}, "a-tq2_0"},
    {"q2_k", Number::f16, {80, 82}, "a-q2_k"},
    {"q3_k", Number::f16, {108}, "a-q3_k_m"},
    {"q5_k", Number::f16, {0, 2}, "a-q5_k_m"},
    {"iq4_xs", Number::f16, {0}, "a-iq4_xs"},
    {"iq1_s", Number::f16, {0}, "a-iq1_s.imatrix"},
    {"iq1_m", Number::f16_in_nibbles, {48}, "a-iq1_m.imatrix"},
    {"iq2_xxs", Number::f16, {0}, "a-iq2_xxs.imatrix"},
    {"iq2_xs", Number::f16, {0}, "a-iq2_xs.imatrix"},
    {"iq2_s", Number::f16, {0}, "a-iq2_m.imatrix"},
    {"iq3_xxs", Number::f16, {0}, "a-iq3_xxs.imatrix"},
    {"iq3_s", Number::f16, {0}, "a-iq3_s"},
    {"nvfp4", Number::ue4m3, {0, 1, 2, 3}, "a-nvfp4.override"},
    {"q1_0", Number::f16, {0}, "a-q1_0"},
};

// Makes a random number finite, and spelled as writers spell it.
void tame(Number kind, std::byte* at) {
  if (kind == Number::f16 && (at[1] & std::byte{0x7C}) == std::byte{0x7C}) at[1] &= std::byte{0xBF};
  if (kind == Number::e8m0 && at[0] > std::byte{0xFC}) at[0] = std::byte{0xFC};
  if (kind == Number::f16_in_nibbles) at[7] &= std::byte{0xBF};  // the four top nibbles of eight bytes, lowest first
  if (kind == Number::ue4m3) at[0] &= std::byte{0x77};
}
// Not every byte is three or five ternary digits as writers spell them.
void spell_ternary(const std::string& type, Bytes& bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const int byte = std::to_integer<int>(bytes[i]);
    if (type == "tq1_0" && i % 54 < 52) {
      const int digits = i % 54 < 48 ? byte % 243 : byte % 81 * 3;
      bytes[i] = static_cast<std::byte>((digits * 256 + 242) / 243);
    }
    if (type == "tq2_0" && i % 66 < 64)
      bytes[i] = static_cast<std::byte>(byte & ~(byte >> 1 & 0x55));  // no pair of ones
  }
}
// Bit patterns that are no finite number.
std::vector<Bytes> broken(Number kind) {
  const auto b = [](int x) { return static_cast<std::byte>(x); };
  if (kind == Number::f16) return {{b(0), b(0x7C)}, {b(0), b(0xFC)}, {b(0), b(0x7E)}};
  if (kind == Number::e8m0) return {{b(0xFF)}};
  if (kind == Number::f16_in_nibbles) return {{b(0), b(0), b(0), b(0), b(0), b(0xC0), b(0), b(0x70)}};
  return {{b(0x80)}, {b(0xFF)}};
}

const GgmlTypeInfo& type_of(const std::string& name) { return *find_ggml_type(name); }
const Grid& grid_named(const std::string& name) { return *grid_of(type_of(name)); }

Bytes encoded(const Quantized& q) {
  Bytes out(ggml_bytes(*ggml_type_of(q.grid()), {q.shape().rows, q.shape().cols}));
  encode_blocks(q, out);
  return out;
}
Quantized decoded(const std::string& type, Shape s, std::span<const std::byte> bytes) {
  return decode_blocks(type_of(type), s, bytes, "blk.0.test");
}

// ---- the second reader

// Whether the second reader can know the type's values.
bool has_codebook(const std::string& type) {
  const bool lattice = step_of(grid_named(type)) > 1;
  if (!lattice) return true;
  const auto path = shared("formats/iq_grids.txt");
  if (!std::filesystem::exists(path)) return false;
  static const bool read = (read_codebooks(path.string()), true);
  return read;
}

Matrix read_again(const std::string& type, Shape s, const Bytes& bytes) {
  const GgmlTypeInfo& info = type_of(type);
  Matrix out(s.rows, s.cols);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (int64_t i = 0; i < out.size(); ++i) {
    const auto at = static_cast<size_t>(i / info.columns * info.bytes), length = static_cast<size_t>(info.bytes);
    out.data()[i] = block_value(type, text.substr(at, length), static_cast<int>(i % info.columns));
  }
  return out;
}

void expect_same_bits(const Matrix& a, const Matrix& b) {
  ASSERT_EQ(a.shape(), b.shape());
  for (int64_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::bit_cast<uint32_t>(a.data()[i]), std::bit_cast<uint32_t>(b.data()[i])) << i << " " << a.data()[i];
}

// ---- generated data

TEST(GgufBlocks, TypesAndGridsNameEachOther) {
  for (const auto& [type, number, at, file] : kTypes) {
    ASSERT_NE(grid_of(type_of(type)), nullptr);
    EXPECT_EQ(name_of(grid_named(type)), type);
    EXPECT_EQ(ggml_type_of(grid_named(type)), &type_of(type));
    EXPECT_DOUBLE_EQ(bits_per_weight(grid_named(type), {8, 256}),
                     static_cast<double>(type_of(type).bytes * 8) / static_cast<double>(type_of(type).columns));
  }
  for (const char* plain : {"f32", "f16", "bf16", "i64", "q8_1"}) EXPECT_EQ(grid_of(type_of(plain)), nullptr);
  EXPECT_EQ(ggml_type_of(AffineSpec{}), nullptr);
}

// Every bit pattern a file can hold comes back, whatever wrote it: bytes -> Quantized -> bytes.
TEST(GgufBlocks, AnyFiniteBytesSurvive) {
  std::mt19937 random(51);
  for (const auto& [type, number, at, file] : kTypes) {
    const Shape s{19, 512};
    const GgmlTypeInfo& info = type_of(type);
    Bytes bytes(ggml_bytes(info, {s.rows, s.cols}));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(info.bytes))
      for (const int64_t i : at) tame(number, &bytes[block + static_cast<size_t>(i)]);
    spell_ternary(type, bytes);
    const Quantized q = decoded(type, s, bytes);
    if (has_codebook(type)) expect_same_bits(dequantize(q), read_again(type, s, bytes));
    EXPECT_EQ(encoded(q), bytes) << type;
  }
}

TEST(GgufBlocks, WrittenMatricesReadTheSame) {
  for (const auto& [type, number, at, file] : kTypes) {
    const Matrix w = random_weights(35, 512, 52);
    const Quantized q = quantized(grid_named(type), w, {});
    const Bytes bytes = encoded(q);
    const Quantized back = decoded(type, w.shape(), bytes);
    EXPECT_EQ(back.codes, q.codes);
    expect_same_bits(dequantize(back), dequantize(q));
    if (has_codebook(type)) expect_same_bits(read_again(type, w.shape(), bytes), dequantize(q));
  }
}

// The example of formats.md §3.3.
TEST(GgufBlocks, SixBitScalesPackAsInTheSpecification) {
  Quantized q(grid_named("q4_k"), {1, 256});
  for (int j = 0; j < 8; ++j) {
    q.set_parameter(0, 0, 2 + j, static_cast<float>(8 * j + 1));
    q.set_parameter(0, 0, 10 + j, static_cast<float>(8 * j + 2));
  }
  const uint8_t expected[] = {0x81, 0x89, 0xd1, 0xd9, 0x82, 0x8a, 0xd2, 0xda, 0x21, 0xa9, 0x21, 0xa9};
  EXPECT_EQ(std::memcmp(encoded(q).data() + 4, expected, 12), 0);
}

std::string refusal(const std::string& type, Shape s, const Bytes& bytes) {
  try {
    decoded(type, s, bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(GgufBlocks, RefusesBrokenScalesAndSizes) {
  for (const auto& [type, number, at, file] : kTypes) {
    const GgmlTypeInfo& info = type_of(type);
    const Bytes good(ggml_bytes(info, {2, 512}));
    EXPECT_EQ(refusal(type, {2, 512}, good), "");
    for (const int64_t i : at)
      for (const Bytes& pattern : broken(number)) {
        Bytes bad = good;
        std::copy(pattern.begin(), pattern.end(), bad.end() - info.bytes + i);
        EXPECT_THAT(refusal(type, {2, 512}, bad),
                    testing::AllOf(testing::HasSubstr("blk.0.test"), testing::HasSubstr("row 1")));
      }
    EXPECT_THAT(refusal(type, {2, 512}, Bytes(good.size() - 1)), testing::HasSubstr("blk.0.test"));
    EXPECT_THAT(refusal(type, {2, 500}, good), testing::HasSubstr("blk.0.test"));
  }
}

TEST(GgufBlocks, RefusesCodesThatStandForNothing) {
  Bytes bytes(66 * 2);
  bytes[66 + 40] = std::byte{0x30};  // row 1, bits 4 and 5 of byte 40: weight 128 + 64 + 8
  EXPECT_THAT(refusal("tq2_0", {2, 256}, bytes),
              testing::AllOf(testing::HasSubstr("row 1, column 200"), testing::HasSubstr("0 to 2")));
}

// ---- the reference's vectors

struct GoldenRow {
  Bytes bytes;
  double mse = 0, weighted = 0;
  std::vector<float> first;
  float last = 0;
};

// "<type> <plain|imatrix>" -> row; the format is explained in the file's head.
std::map<std::string, GoldenRow> golden_rows() {
  std::ifstream in(shared("formats/ggml_golden.txt"));
  std::map<std::string, GoldenRow> rows;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream head(line);
    std::string type, kind, bytes, mse, weighted, hex, values;
    head >> type >> kind >> bytes >> mse >> weighted;
    std::getline(in, hex);
    std::getline(in, values);
    std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return std::tolower(c); });
    GoldenRow& row = rows[type + " " + kind];
    row.mse = std::stod(mse.substr(4));
    row.weighted = std::stod(weighted.substr(5));
    for (size_t i = 0; i < hex.size(); i += 2)
      row.bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    std::istringstream tail(values.substr(values.find('=') + 1));
    row.first.resize(8);
    for (float& x : row.first) tail >> x;
    row.last = std::stof(values.substr(values.rfind('=') + 1));
  }
  return rows;
}

Matrix golden_weights() {
  Matrix x(1, 256);
  for (int i = 0; i < 256; ++i) x(0, i) = static_cast<float>((37 * i + 11) % 101 - 50) / 64;
  return x;
}
std::vector<float> golden_importance() {
  std::vector<float> w;
  for (int i = 0; i < 256; ++i) w.push_back(static_cast<float>((13 * i + 5) % 17 + 1) / 8);
  return w;
}

TEST(GgufBlocks, ReadsTheReferencesVectors) {
  PARE_NEEDS_SHARED("formats/ggml_golden.txt");
  const auto rows = golden_rows();
  const Matrix x = golden_weights();
  const std::vector<float> importance = golden_importance();
  for (const auto& [type, number, at, file] : kTypes)
    for (const char* kind : {" plain", " imatrix"}) {
      if (!rows.contains(type + kind)) continue;  // some types exist with importance only
      const GoldenRow& row = rows.at(type + kind);
      const Quantized q = decoded(type, {1, 256}, row.bytes);
      const Matrix y = dequantize(q);
      for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(y(0, i), row.first[static_cast<size_t>(i)]) << type << kind << i;
      EXPECT_EQ(y(0, 255), row.last);
      EXPECT_NEAR(squared_error(x, y) / 256, row.mse, 1e-6 * row.mse);
      EXPECT_NEAR(squared_error(x, y, importance) / 256, row.weighted, 1e-6 * row.weighted);
      EXPECT_EQ(encoded(q), row.bytes);
    }
}

// Our searches minimise exactly what these rows report, so they must not lose to the reference's.
TEST(GgufBlocks, SearchesAreNoWorseThanTheReferences) {
  PARE_NEEDS_SHARED("formats/ggml_golden.txt");
  const auto rows = golden_rows();
  const Matrix x = golden_weights();
  const std::vector<float> importance = golden_importance();
  for (const auto& [type, number, at, file] : kTypes) {
    const Matrix plain = dequantize(quantized(grid_named(type), x, {}));
    const Matrix weighted = dequantize(quantized(grid_named(type), x, {Search::error, importance, false}));
    if (rows.contains(type + " plain")) {
      EXPECT_LE(squared_error(x, plain) / 256, rows.at(type + " plain").mse * 1.0001) << type;
    }
    // A scale and a min of one block: this row's eight blocks come out 0.3 % short of the reference's starts.
    const double slack = type == "q4_1" ? 1.004 : 1.0001;
    EXPECT_LE(squared_error(x, weighted, importance) / 256, rows.at(type + " imatrix").weighted * slack) << type;
    RecordProperty(type,
                   std::to_string(squared_error(x, weighted, importance) / 256 / rows.at(type + " imatrix").weighted));
  }
}

// Whole files of the reference: dequantized floats equal to the bit, blocks written back equal to the byte.
TEST(GgufBlocks, ReadsTheReferencesFiles) {
  PARE_NEEDS_SHARED("golden/gguf");
  const Json index = read_json_file(shared("golden/gguf/quantized-a.json").string());
  std::map<std::string, int> seen;
  std::set<std::string> files;
  for (const Type& type : kTypes) files.insert(type.file);
  for (const std::string& name : files) {
    const auto file = GgufFile::open(shared("golden/gguf/" + name + ".gguf"));
    for (const Json& tensor : index.at(name).at("tensors")) {
      const auto entry = std::find_if(file->entries().begin(), file->entries().end(), [&](const GgufEntry& e) {
        return e.name == tensor.at("name").get<std::string>();
      });
      ASSERT_NE(entry, file->entries().end());
      if (!grid_of(*entry->type)) continue;
      const Shape s{entry->shape.at(0), entry->shape.at(1)};
      const Quantized q = decode_blocks(*entry->type, s, entry->bytes, entry->name);
      EXPECT_EQ(sha256_of(std::as_bytes(dequantize(q).values())), tensor.at("f32_sha256"))
          << name << " " << entry->name;
      EXPECT_EQ(sha256_of(encoded(q)), tensor.at("sha256")) << name << " " << entry->name;
      ++seen[std::string(entry->type->name)];
    }
  }
  for (const auto& [type, number, at, file] : kTypes) EXPECT_GE(seen[type], 2) << type;
}

// A float tensor of the model from which the reference made its files.
Matrix source_tensor(const std::string& name, Shape s) {
  const auto file = MappedFile::open(shared("golden/gguf/hf-a/model.safetensors"));
  uint64_t header = 0;
  std::memcpy(&header, file->bytes().data(), 8);
  const auto* text = reinterpret_cast<const char*>(file->bytes().data() + 8);
  const Json entry = parse_json({text, header}, "hf-a").at(name);
  Matrix w(s.rows, s.cols);
  std::memcpy(w.data(), text + header + entry.at("data_offsets").at(0).get<uint64_t>(), w.values().size_bytes());
  return w;
}

// On tensors with odd rows, outliers and rows off centre. The reference's plain k-quants minimise a weighted error, so
// this bounds them from one side only; q4_0 and q8_0 are rounded to nearest there.
TEST(GgufBlocks, SearchesLeaveLessErrorThanTheReferencesFiles) {
  PARE_NEEDS_SHARED("golden/gguf/hf-a/model.safetensors");
  const std::pair<std::string, std::string> tensors[] = {
      {"blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"},
      {"blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"}};
  for (const auto& [type, number, at, file_name] : kTypes) {
    const auto file = GgufFile::open(shared("golden/gguf/" + file_name + ".gguf"));
    for (const auto& [name, source] : tensors)
      for (const GgufEntry& entry : file->entries()) {
        if (entry.name != name || entry.type->name != type) continue;
        const Shape s{entry.shape.at(0), entry.shape.at(1)};
        const Matrix w = source_tensor(source, s);
        const double theirs = squared_error(w, dequantize(decode_blocks(*entry.type, s, entry.bytes, name)));
        const double ours = squared_error(w, dequantize(quantized(grid_named(type), w, {})));
        if (type == "q1_0")  // a mean, for everybody
          EXPECT_NEAR(ours, theirs, 1e-4 * theirs) << name;
        else
          EXPECT_LT(ours, theirs) << type << " " << name;
        RecordProperty(type + "." + name, std::to_string(ours / theirs));
      }
  }
}

}  // namespace
}  // namespace pare
