#include "tests/readers/second_reader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <span>

#include "pare/base/sha256.h"
#include "tests/support/golden.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string from_hex(const std::string& hex) {
  std::string bytes, pair;
  for (const char c : hex) {
    if (c == ' ') continue;
    pair += c;
    if (pair.size() == 2) bytes += static_cast<char>(std::stoi(pair, nullptr, 16)), pair.clear();
  }
  return bytes;
}

void write(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}
std::string sha256(const std::string& bytes) { return sha256_of(std::as_bytes(std::span(bytes))); }

std::string safetensors(const json& header, const std::string& data) {
  const std::string text = header.dump();
  return bytes_of(std::vector<uint64_t>{text.size()}) + text + data;
}

// The smallest useful GGUF file of formats.md §3.1: three pairs, an F32 vector and one row of Q4_0.
std::string example_gguf() {
  const std::string zeros4(8, '0'), zeros8(16, '0');
  return from_hex(
      "474755460300000002000000000000000300000000000000"
      "140000000000000067656e6572616c2e617263686974656374757265080000000500000000000000 6c6c616d61"
      "110000000000000067656e6572616c2e616c69676e6d656e740400000020000000"
      "1500000000000000746f6b656e697a65722e67676d6c2e746f6b656e7309000000080000000200000000000000"
      "03000000000000003c733e010000000000000061"
      "12000000000000006f75747075745f6e6f726d2e776569676874010000000200000000000000" +
      zeros4 + zeros8 +
      "1300000000000000626c6b2e302e66666e5f75702e7765696768740200000020000000000000000200000000000000020000002000000000"
      "000000" +
      std::string(24, '0') + "0000803f00000040" + std::string(48, '0') +
      "402ef258be1379df359bf147ac0268ce248a40ae53fd9731db852fca640ea842fc9630db" + std::string(56, '0'));
}

TEST(SecondGguf, ReadsTheExampleOfTheSpecification) {
  const TemporaryDirectory directory;
  ASSERT_EQ(example_gguf().size(), 384u);
  write(directory / "a.gguf", example_gguf());
  const json metadata = read_gguf_metadata(directory / "a.gguf");
  EXPECT_EQ(
      metadata,
      (json{{"general.architecture", "llama"}, {"general.alignment", 32}, {"tokenizer.ggml.tokens", {"<s>", "a"}}}));
  const SecondTensors tensors = read_gguf(directory / "a.gguf");
  EXPECT_EQ(tensors.at("output_norm.weight").values, (std::vector<float>{1, 2}));
  const SecondTensor& up = tensors.at("blk.0.ffn_up.weight");
  EXPECT_EQ(up.type, "q4_0");
  EXPECT_EQ(up.shape, (std::vector<int64_t>{2, 32}));
  // Row 0: d = 0x2e40 = 0.09765625; first byte f2: nibbles 2 and 15. Row 1: d = 0xae40; first byte 53.
  EXPECT_EQ(up.values.at(0), -6 * 0.09765625f);
  EXPECT_EQ(up.values.at(16), 7 * 0.09765625f);
  EXPECT_EQ(up.values.at(32), -5 * -0.09765625f);
  EXPECT_EQ(up.values.at(48), -3 * -0.09765625f);
}

TEST(SecondGguf, RefusesWhatTheSpecificationRefuses) {
  const TemporaryDirectory directory;
  const auto read = [&](std::string bytes) {
    write(directory / "a.gguf", bytes);
    return read_gguf(directory / "a.gguf");
  };
  const std::string good = example_gguf();
  EXPECT_NO_THROW(read(good));
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_THROW(read(good.substr(0, length)), std::runtime_error);
  EXPECT_THROW(read(good + '\0'), std::runtime_error);
  const auto with = [&](size_t at, char value) {
    std::string bytes = good;
    bytes.at(at) = value;
    return bytes;
  };
  const size_t offset_of_second = 288 - 12 - 8, type_of_second = offset_of_second - 4;
  ASSERT_EQ(good.at(offset_of_second), 32);
  EXPECT_THROW(read(with(4, 1)), std::runtime_error);                  // version 1
  EXPECT_THROW(read(with(offset_of_second, 64)), std::runtime_error);  // a hole
  EXPECT_THROW(read(with(offset_of_second, 0)), std::runtime_error);   // an overlap
  EXPECT_THROW(read(with(type_of_second, 4)), std::runtime_error);     // a removed type
}

// Every block type from bytes chosen by hand; the layouts are drawn in formats.md §3.3.
std::vector<float> values_of(int type, int weights, const std::string& block) {
  const TemporaryDirectory directory;
  std::string head = "GGUF" + bytes_of(std::vector<uint32_t>{3}) + bytes_of(std::vector<int64_t>{1, 0}) +
                     bytes_of(std::vector<uint64_t>{1}) + "t" + bytes_of(std::vector<uint32_t>{1}) +
                     bytes_of(std::vector<int64_t>{weights}) + bytes_of(std::vector<int32_t>{type}) +
                     bytes_of(std::vector<uint64_t>{0});
  head.resize((head.size() + 31) / 32 * 32);
  std::string data = block;
  data.resize((data.size() + 31) / 32 * 32);
  write(directory / "t.gguf", head + data);
  return read_gguf(directory / "t.gguf").at("t").values;
}
const std::string kOne = from_hex("003c"), kTwo = from_hex("0040");  // f16

TEST(SecondGguf, Q8_0) {
  std::string block = kTwo;
  for (int i = 0; i < 32; ++i) block += static_cast<char>(i - 16);
  const auto values = values_of(8, 32, block);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(values.at(static_cast<size_t>(i)), 2.0f * static_cast<float>(i - 16));
}

TEST(SecondGguf, Q4_KScalesAndMinsAreTheExampleOfTheSpecification) {
  // sc = {1, 9, 17, …}, mn = {2, 10, 18, …}; the codes of group g are all g, or 15 - g in its second half
  std::string block = kOne + kTwo + from_hex("8189d1d9828ad2da21a921a9");
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l) {
      const int low = l < 16 ? 2 * pair : 15 - 2 * pair, high = l < 16 ? 2 * pair + 1 : 14 - 2 * pair;
      block += static_cast<char>(low | high << 4);
    }
  const auto values = values_of(12, 256, block);
  for (int e = 0; e < 256; ++e) {
    const int g = e / 32, code = e % 32 < 16 ? g : 15 - g;
    EXPECT_EQ(values.at(static_cast<size_t>(e)), static_cast<float>((1 + 8 * g) * code - 2 * (2 + 8 * g))) << e;
  }
}

TEST(SecondGguf, Q6_K) {
  // The code of weight e is (7 e + e / 64) mod 64, the scale of its 16 weights e / 16 - 8.
  const auto code = [](int e) { return (7 * e + e / 64) % 64; };
  std::string low(128, '\0'), high(64, '\0'), scales;
  for (int e = 0; e < 256; ++e) {
    const int half = e / 128, quarter = e % 128 / 32, l = e % 32;
    low[static_cast<size_t>(64 * half + 32 * (quarter % 2) + l)] |=
        static_cast<char>((code(e) & 15) << (quarter / 2 * 4));
    high[static_cast<size_t>(32 * half + l)] |= static_cast<char>((code(e) >> 4) << (2 * quarter));
  }
  for (int i = 0; i < 16; ++i) scales += static_cast<char>(i - 8);
  const auto values = values_of(14, 256, low + high + scales + kTwo);
  for (int e = 0; e < 256; ++e)
    EXPECT_EQ(values.at(static_cast<size_t>(e)), static_cast<float>(2 * (e / 16 - 8) * (code(e) - 32))) << e;
}

// Whole files written by llama-quantize: the hashes of all floats that ggml makes of them.
TEST(SecondGguf, AgreesWithGgmlOnWholeFiles) {
  PARE_NEEDS_SHARED("golden/gguf/quantized-a.json");
  std::ifstream in(shared("golden/gguf/quantized-a.json"));
  const json runs = json::parse(in);
  int compared = 0;
  for (const std::string name : {"a-q4_0", "a-q8_0", "a-q4_k_m", "a-q6_k"}) {
    const SecondTensors tensors = read_gguf(shared("golden/gguf/" + name + ".gguf"));
    EXPECT_EQ(tensors.size(), runs.at(name).at("tensors").size());
    for (const json& expected : runs.at(name).at("tensors")) {
      const SecondTensor& tensor = tensors.at(expected.at("name"));
      EXPECT_EQ(sha256(tensor.bytes), expected.at("sha256")) << name << " " << tensor.name;
      EXPECT_EQ(sha256(bytes_of(tensor.values)), expected.at("f32_sha256")) << name << " " << tensor.name;
      std::vector<int64_t> ne(tensor.shape.rbegin(), tensor.shape.rend());
      EXPECT_EQ(json(ne), expected.at("ne"));
      ++compared;
    }
  }
  EXPECT_EQ(compared, 4 * 12);
}

TEST(SecondSafetensors, ReadsTheExampleOfTheSpecification) {
  const TemporaryDirectory directory;
  const std::string header =
      R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]}}  )";
  ASSERT_EQ(header.size(), 112u);
  const std::string file =
      bytes_of(std::vector<uint64_t>{112}) + header + from_hex("0000c03f") + from_hex("003c00c000380000");
  write(directory / "a.safetensors", file);
  const SecondTensors tensors = read_safetensors(directory / "a.safetensors");
  EXPECT_EQ(tensors.at("b").values, (std::vector<float>{1.5f}));
  EXPECT_EQ(tensors.at("a").values, (std::vector<float>{1, -2, 0.5f, 0}));
  EXPECT_EQ(tensors.at("a").type, "f16");
  write(directory / "b.safetensors", file + "x");
  EXPECT_THROW(read_safetensors(directory / "b.safetensors"), std::runtime_error);
  write(directory / "c.safetensors", file.substr(0, file.size() - 1));
  EXPECT_THROW(read_safetensors(directory / "c.safetensors"), std::runtime_error);
}

TEST(SecondSafetensors, ReadsTheDemoModel) {
  const SecondTensors tensors = read_directory(demo_model());
  std::ifstream in(demo_model() / "config.json");
  const json config = json::parse(in);
  const SecondTensor& embedding = tensors.at("model.embed_tokens.weight");
  EXPECT_EQ(embedding.shape, (std::vector<int64_t>{config.at("vocab_size"), config.at("hidden_size")}));
  for (const auto& [name, tensor] : tensors)
    for (const float value : tensor.values) ASSERT_TRUE(std::isfinite(value)) << name;
}

// A GPTQ directory of one module, packed here as one long string of bits.
struct Module {
  int bits, in, out, group;
  int code(int k, int n) const { return (5 * k + 3 * n + k * n / 7) % (1 << bits); }
  int zero(int g, int n) const { return 1 + (g + n) % ((1 << bits) - 1); }
  static float scale(int g, int n) { return static_cast<float>(1 + g + n % 4) / 8.0f; }
};

std::vector<uint32_t> pack(const std::vector<int>& codes, int bits) {
  std::vector<uint32_t> words(codes.size() * static_cast<size_t>(bits) / 32);
  for (size_t i = 0; i < codes.size(); ++i)
    for (int b = 0; b < bits; ++b) {
      const size_t position = i * static_cast<size_t>(bits) + static_cast<size_t>(b);
      words.at(position / 32) |= static_cast<uint32_t>(codes[i] >> b & 1) << position % 32;
    }
  return words;
}

// [words of `length` codes, `columns`]: column c holds the packed codes of c.
template <class Code>
std::vector<uint32_t> pack_down(int length, int columns, int bits, Code&& code) {
  const int rows = length * bits / 32;
  std::vector<uint32_t> words(static_cast<size_t>(rows * columns));
  for (int c = 0; c < columns; ++c) {
    std::vector<int> codes;
    for (int i = 0; i < length; ++i) codes.push_back(code(i, c));
    const auto packed = pack(codes, bits);
    for (int r = 0; r < rows; ++r) words.at(static_cast<size_t>(r * columns + c)) = packed.at(static_cast<size_t>(r));
  }
  return words;
}

struct Words {
  std::vector<uint32_t> qweight, qzeros;
};
Words pack(const Module& m, bool v1) {
  Words words;
  words.qweight = pack_down(m.in, m.out, m.bits, [&](int k, int n) { return m.code(k, n); });
  for (int g = 0; g < m.in / m.group; ++g) {
    std::vector<int> zeros;
    for (int n = 0; n < m.out; ++n) zeros.push_back(m.zero(g, n) - (v1 ? 1 : 0));
    const auto row = pack(zeros, m.bits);
    words.qzeros.insert(words.qzeros.end(), row.begin(), row.end());
  }
  return words;
}

void write_module(const fs::path& directory, const Module& m, const std::string& format,
                  const std::vector<int32_t>& g_idx) {
  const Words words = pack(m, format == "gptq");
  std::vector<uint16_t> scales;  // f16 of eighths: exact
  for (int g = 0; g < m.in / m.group; ++g)
    for (int n = 0; n < m.out; ++n) {
      int exponent;
      const float fraction = std::frexp(Module::scale(g, n), &exponent);
      scales.push_back(static_cast<uint16_t>((exponent + 14) << 10 | static_cast<int>(fraction * 2048 - 1024)));
    }
  json header = json::object();
  std::string data;
  const auto add = [&](const std::string& name, const std::string& dtype, const std::vector<int>& shape,
                       const std::string& bytes) {
    header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  };
  add("m.qweight", "I32", {m.in * m.bits / 32, m.out}, bytes_of(words.qweight));
  add("m.qzeros", "I32", {m.in / m.group, m.out * m.bits / 32}, bytes_of(words.qzeros));
  add("m.scales", "F16", {m.in / m.group, m.out}, bytes_of(scales));
  if (!g_idx.empty()) add("m.g_idx", "I32", {m.in}, bytes_of(g_idx));
  add("norm.weight", "F16", {1}, kTwo);
  write(directory / "model.safetensors", safetensors(header, data));
  const json config = {
      {"quant_method", "gptq"}, {"bits", m.bits}, {"group_size", m.group}, {"checkpoint_format", format}};
  write(directory / "config.json", json{{"quantization_config", config}}.dump());
}

// Words measured on the reference packer (hf_checkpoints.md A.1, "Test vector"): K = 64, N = 32, groups of 32.
TEST(SecondGptq, ThePackingOfThisTestIsTheReferences) {
  const auto first = [](const std::vector<uint32_t>& words, size_t count) {
    return std::vector<uint32_t>(words.begin(), words.begin() + static_cast<long>(count));
  };
  const Words b2 = pack({2, 64, 32, 32}, true), b3 = pack({3, 64, 32, 32}, true), b4 = pack({4, 64, 32, 32}, true),
              b8 = pack({8, 64, 32, 32}, true);
  using W = std::vector<uint32_t>;
  EXPECT_EQ(first(b2.qweight, 4), (W{0xE4E4E4E4, 0x34E4D393, 0x4924D34E, 0x9E34D279}));
  EXPECT_EQ(first(b2.qzeros, 2), (W{0x24924924, 0x49249249}));
  EXPECT_EQ(first(b3.qweight, 4), (W{0xA878CEA8, 0x8CE67543, 0xA8743A1E, 0xCCE662F1}));
  EXPECT_EQ(first(b3.qzeros, 3), (W{0xD11AC688, 0x6B1A2358, 0x688D6344}));
  EXPECT_EQ(first(b4.qweight, 4), (W{0x3E94FA50, 0x71C72D83, 0xB50B50B6, 0xF94E93E9}));
  EXPECT_EQ(first(b4.qzeros, 4), (W{0x76543210, 0x0EDCBA98, 0x87654321, 0x10EDCBA9}));
  EXPECT_EQ(first(b8.qweight, 4), (W{0x0F0A0500, 0x120D0803, 0x15100B06, 0x19130E09}));
  EXPECT_EQ(first(b8.qzeros, 4), (W{0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C}));
}

void expect_module(const fs::path& directory, const Module& m, const std::function<int(int)>& group_of) {
  const SecondTensors tensors = read_gptq_directory(directory);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors.at("norm.weight").values, (std::vector<float>{2}));
  const SecondTensor& weight = tensors.at("m.weight");
  EXPECT_EQ(weight.shape, (std::vector<int64_t>{m.out, m.in}));
  for (int n = 0; n < m.out; ++n)
    for (int k = 0; k < m.in; ++k) {
      const int g = group_of(k);
      ASSERT_EQ(weight.values.at(static_cast<size_t>(n * m.in + k)),
                Module::scale(g, n) * static_cast<float>(m.code(k, n) - m.zero(g, n)))
          << m.bits << " bits, row " << n << ", column " << k;
    }
}

TEST(SecondGptq, ReadsBothConventionsAndEveryWidth) {
  for (const std::string format : {"gptq", "gptq_v2"})
    for (const int bits : {2, 3, 4, 8}) {
      const TemporaryDirectory directory;
      const Module module{bits, 64, 32, 32};
      write_module(directory.path(), module, format, {});
      expect_module(directory.path(), module, [](int k) { return k / 32; });
    }
}

TEST(SecondGptq, FollowsAStoredOrder) {
  const TemporaryDirectory directory;
  const Module module{4, 64, 32, 16};
  std::vector<int32_t> g_idx;
  for (int k = 0; k < 64; ++k) g_idx.push_back(k == 5 ? -1 : k * 7 % 4);  // -1: the last group
  write_module(directory.path(), module, "gptq", g_idx);
  expect_module(directory.path(), module, [](int k) { return k == 5 ? 3 : k * 7 % 4; });
}

TEST(SecondGptq, ReadsShards) {
  const TemporaryDirectory directory;
  const auto one = [](const char* name, float value) {
    return safetensors({{name, {{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {0, 4}}}}},
                       bytes_of(std::vector<float>{value}));
  };
  write(directory / "s1", one("a", 1));
  write(directory / "s2", one("b", 2));
  write(directory / "model.safetensors.index.json", R"({"weight_map": {"a": "s1", "b": "s2"}})");
  const SecondTensors tensors = read_directory(directory.path());
  EXPECT_EQ(tensors.at("a").values.at(0), 1);
  EXPECT_EQ(tensors.at("b").values.at(0), 2);
  write(directory / "model.safetensors.index.json", R"({"weight_map": {"a": "s1", "b": "s2", "c": "s2"}})");
  EXPECT_THROW(read_directory(directory.path()), std::runtime_error);
}

// Whole checkpoints by GPTQModel and AutoRound. `dequantized.safetensors` holds one weight, and the first rows of
// another, as the reference dequantizes them.
TEST(SecondGptq, AgreesWithTheReferenceOnWholeCheckpoints) {
  PARE_NEEDS_SHARED("golden/gptq");
  int checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(shared("golden/gptq"))) {
    const std::string name = entry.path().filename();
    if (!fs::exists(entry.path() / "dequantized.safetensors")) continue;
    const SecondTensors tensors = read_gptq_directory(entry.path());
    for (const auto& [key, expected] : read_safetensors(entry.path() / "dequantized.safetensors")) {
      const SecondTensor& weight = tensors.at(key.substr(0, key.find(".rows")));
      EXPECT_EQ(weight.shape.at(1), expected.shape.at(1));
      const std::vector<float> rows(weight.values.begin(),
                                    weight.values.begin() + static_cast<long>(expected.values.size()));
      if (name.ends_with("planar"))  // the tool's kernel rounded these to f16
        for (size_t i = 0; i < rows.size(); ++i)
          ASSERT_NEAR(rows[i], expected.values[i], 0x1p-11f * std::fabs(rows[i])) << key << " at " << i;
      else
        EXPECT_EQ(rows, expected.values) << name << " " << key;
    }
    ++checkpoints;
  }
  EXPECT_GE(checkpoints, 19);
}

}  // namespace
}  // namespace pare::test
