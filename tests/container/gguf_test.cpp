#include "pare/container/gguf.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "pare/base/sha256.h"
#include "tests/container/files.h"
#include "tests/container/gguf_image.h"

namespace pare::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Gguf : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& bytes) {
    write_bytes(directory_ / "t.gguf", bytes);
    return directory_ / "t.gguf";
  }
  std::string refusal(const std::string& bytes) {
    const auto path = put(bytes);
    const std::string text = error_of([&] { GgufFile::open(path); });
    EXPECT_THAT(text, HasSubstr("t.gguf"));
    return text;
  }
  TemporaryDirectory directory_;
};

TEST_F(Gguf, ReadsTheExampleOfTheSpecification) {
  const std::string bytes = gguf_example();
  ASSERT_EQ(bytes.size(), 384u);
  const auto file = GgufFile::open(put(bytes));
  EXPECT_EQ(file->version(), 3);
  EXPECT_EQ(file->metadata().text("general.architecture"), "llama");
  EXPECT_EQ(*file->metadata().array<std::string>("tokenizer.ggml.tokens"), (std::vector<std::string>{"<s>", "a"}));
  ASSERT_EQ(file->entries().size(), 2u);
  EXPECT_EQ(text_of(file->entries()[0].bytes), from_hex("0000803f00000040"));
  EXPECT_EQ(file->entries()[1].type->name, "q4_0");
  EXPECT_EQ(file->entries()[1].shape, (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(text_of(file->entries()[1].bytes).substr(0, 4), from_hex("402ef258"));
}

TEST_F(Gguf, WritesTheExampleOfTheSpecification) {
  const auto file = GgufFile::open(put(gguf_example()));
  std::vector<GgufSlot> slots;
  for (const auto& e : file->entries()) slots.push_back({e.name, e.type, e.shape});
  GgufWriter writer(directory_ / "w.gguf", file->metadata(), slots);
  writer.add(file->entries()[1].name, file->entries()[1].bytes);
  EXPECT_THROW(writer.seal(), std::logic_error);
  EXPECT_THROW(writer.add("blk.9.ffn_up.weight", {}), std::logic_error);
  EXPECT_THROW(writer.add(file->entries()[0].name, {}), std::logic_error);
  writer.add(file->entries()[0].name, file->entries()[0].bytes);
  EXPECT_THROW(writer.add(file->entries()[0].name, file->entries()[0].bytes), std::logic_error);
  writer.seal();
  EXPECT_EQ(read_bytes(writer.staged()), gguf_example());
  EXPECT_FALSE(std::filesystem::exists(directory_ / "w.gguf"));
  writer.commit();
  EXPECT_EQ(read_bytes(directory_ / "w.gguf"), gguf_example());
  EXPECT_EQ(GgufWriter::file_bytes(file->metadata(), slots), gguf_example().size());
}

TEST_F(Gguf, EveryKindOfValueRoundTrips) {
  Metadata metadata;
  metadata.set("u8", uint8_t{200});
  metadata.set("i8", int8_t{-3});
  metadata.set("u16", uint16_t{60000});
  metadata.set("i16", int16_t{-300});
  metadata.set("u32", uint32_t{4'000'000'000});
  metadata.set("i32", int32_t{-70000});
  metadata.set("f32", 1.5f);
  metadata.set("bool", true);
  metadata.set("u64", uint64_t{1} << 63);
  metadata.set("i64", int64_t{-1} << 62);
  metadata.set("f64", 0.1);
  metadata.set("text", std::string("grüße"));
  metadata.set("a8", std::vector<uint8_t>{1, 2});
  metadata.set("a16", std::vector<int16_t>{-1, 2, 3});
  metadata.set("af", std::vector<float>{0.5f});
  metadata.set("ab", std::vector<bool>{true, false, true});
  metadata.set("a64", std::vector<int64_t>{});
  metadata.set("as", std::vector<std::string>{"", "x", "日本"});
  metadata.set("general.alignment", uint32_t{64});
  GgufWriter writer(directory_ / "w.gguf", metadata, {{"t", find_ggml_type("f16"), {3}}});
  writer.add("t", bytes_of(std::string("abcdef")));
  writer.commit();
  const auto file = GgufFile::open(directory_ / "w.gguf");
  EXPECT_EQ(file->metadata().entries(), metadata.entries());
  EXPECT_EQ(text_of(file->entries()[0].bytes), "abcdef");
  EXPECT_EQ(std::filesystem::file_size(directory_ / "w.gguf") % 64, 0u);
}

TEST_F(Gguf, TypesAreThoseOfTheFormat) {
  EXPECT_EQ(ggml_types().size(), 35u);
  EXPECT_EQ(ggml_bytes(*find_ggml_type("q6_k"), {3, 512}), 3u * 2 * 210);
  EXPECT_EQ(find_ggml_type("iq4_xs")->id, 23);
  for (const int removed : {4, 5, 31, 32, 33, 36, 37, 38, 43, -1}) EXPECT_EQ(find_ggml_type(removed), nullptr);
  for (const GgmlTypeInfo& t : ggml_types()) EXPECT_EQ(find_ggml_type(t.name), find_ggml_type(t.id));
}

TEST_F(Gguf, VersionTwoIsReadAndOthersAreNot) {
  EXPECT_EQ(GgufFile::open(put(GgufImage{.version = 2}.bytes()))->version(), 2);
  EXPECT_THAT(refusal(GgufImage{.version = 1}.bytes()), AllOf(HasSubstr("version"), HasSubstr("got 1")));
  EXPECT_THAT(refusal(GgufImage{.version = 4}.bytes()), HasSubstr("got 4"));
  EXPECT_THAT(refusal(GgufImage{.version = 0x03000000}.bytes()), HasSubstr("big-endian"));
  EXPECT_THAT(refusal("GGML" + raw<uint32_t>(3)), HasSubstr("not a GGUF file"));
  EXPECT_THAT(refusal(""), HasSubstr("not a GGUF file"));
  EXPECT_THAT(refusal("GGUF"), HasSubstr("ends inside"));
}

TEST_F(Gguf, RefusesAbsurdCounts) {
  EXPECT_THAT(refusal(GgufImage{.tensor_count = -1}.bytes()), HasSubstr("number of tensors"));
  EXPECT_THAT(refusal(GgufImage{.tensor_count = int64_t{1} << 60}.bytes()), HasSubstr("number of tensors"));
  EXPECT_THAT(refusal(GgufImage{.key_count = -1}.bytes()), HasSubstr("number of keys"));
  EXPECT_THAT(refusal(GgufImage{.key_count = INT64_MAX}.bytes()), HasSubstr("number of keys"));
}

TEST_F(Gguf, RefusesLyingLengths) {
  const auto with_key = [&](const std::string& kv) { return refusal(GgufImage{.keys = {kv}}.bytes()); };
  EXPECT_THAT(with_key(raw<uint64_t>(UINT64_MAX) + "k"), HasSubstr("length of a key"));
  EXPECT_THAT(with_key(raw<uint64_t>(1 << 20) + "k"), HasSubstr("length of a key"));
  EXPECT_THAT(with_key(raw_string("")), HasSubstr("key is empty"));
  EXPECT_THAT(with_key(raw_string("k\xff") + raw<int32_t>(4) + raw<uint32_t>(1)), HasSubstr("UTF-8"));
  EXPECT_THAT(with_key(raw_string("k") + raw<int32_t>(8) + raw<uint64_t>(uint64_t{1} << 62)), HasSubstr("key k"));
  EXPECT_THAT(with_key(raw_string("k") + raw<int32_t>(13) + raw<uint64_t>(1)), HasSubstr("type of a value is unknown"));
  EXPECT_THAT(with_key(raw_string("k") + raw<int32_t>(-1) + raw<uint64_t>(1)), HasSubstr("type of a value is unknown"));
  const auto array = raw_string("k") + raw<int32_t>(9);
  EXPECT_THAT(with_key(array + raw<int32_t>(9) + raw<uint64_t>(1)), HasSubstr("arrays of arrays"));
  EXPECT_THAT(with_key(array + raw<int32_t>(99) + raw<uint64_t>(1)), HasSubstr("type of an array is unknown"));
  EXPECT_THAT(with_key(array + raw<int32_t>(10) + raw<uint64_t>(uint64_t{1} << 61)), HasSubstr("length of an array"));
  EXPECT_THAT(with_key(array + raw<int32_t>(8) + raw<uint64_t>(40)), HasSubstr("length of an array"));
  EXPECT_THAT(with_key(array + raw<int32_t>(8) + raw<uint64_t>(1) + raw_string("\xc3")), HasSubstr("UTF-8"));
}

TEST_F(Gguf, RefusesDuplicates) {
  const std::string key = raw_string("k") + raw<int32_t>(4) + raw<uint32_t>(1);
  EXPECT_THAT(refusal(GgufImage{.keys = {key, key}}.bytes()), AllOf(HasSubstr("twice"), HasSubstr("k")));
  EXPECT_THAT(refusal(GgufImage{.tensors = {{.name = "t"}, {.name = "t", .offset = 32}}}.bytes()),
              AllOf(HasSubstr("twice"), HasSubstr("tensor t")));
}

TEST_F(Gguf, RefusesWrongAlignments) {
  const auto with_alignment = [&](const std::string& value) {
    return refusal(GgufImage{.keys = {raw_string("general.alignment") + value}}.bytes());
  };
  EXPECT_THAT(with_alignment(raw<int32_t>(4) + raw<uint32_t>(0)), HasSubstr("power of two"));
  EXPECT_THAT(with_alignment(raw<int32_t>(4) + raw<uint32_t>(48)), HasSubstr("power of two"));
  EXPECT_THAT(with_alignment(raw<int32_t>(10) + raw<uint64_t>(32)), HasSubstr("another type"));
  EXPECT_THAT(with_alignment(raw<int32_t>(4) + raw<uint32_t>(1u << 31)), HasSubstr("ends before its data"));
}

TEST_F(Gguf, RefusesImpossibleTensors) {
  const auto with = [&](const GgufImage::Tensor& t) { return refusal(GgufImage{.tensors = {t}}.bytes()); };
  EXPECT_THAT(with({.name = ""}), HasSubstr("wrong length"));
  EXPECT_THAT(with({.name = std::string(64, 'n')}), HasSubstr("wrong length"));
  EXPECT_THAT(with({.name = "t\x80"}), HasSubstr("UTF-8"));
  EXPECT_THAT(with({.ne = {}}), HasSubstr("1 to 4 dimensions"));
  EXPECT_THAT(with({.ne = {1, 1, 1, 1, 1}}), HasSubstr("1 to 4 dimensions"));
  EXPECT_THAT(with({.ne = {-1}}), HasSubstr("overflows or is negative"));
  EXPECT_THAT(with({.ne = {int64_t{1} << 32, int64_t{1} << 31}}), HasSubstr("overflows"));
  EXPECT_THAT(with({.ne = {0, int64_t{1} << 62, int64_t{1} << 62}}), HasSubstr("overflows"));
  EXPECT_THAT(with({.ne = {int64_t{1} << 61}}), HasSubstr("size overflows"));
  EXPECT_THAT(with({.ne = {33}, .type = 2}), AllOf(HasSubstr("multiple of 32"), HasSubstr("got 33")));
  for (const int32_t type : {4, 31, 38, 43, 1000, -1})
    EXPECT_THAT(with({.type = type}), HasSubstr("unknown or was removed")) << type;
  EXPECT_THAT(with({.offset = 32}), HasSubstr("hole"));
  EXPECT_THAT(with({.offset = uint64_t{1} << 63}), HasSubstr("hole"));
  EXPECT_THAT(with({.ne = {int64_t{1} << 40}}), AllOf(HasSubstr("ends beyond the file"), HasSubstr("tensor t")));
  EXPECT_THAT(refusal(GgufImage{.tensors = {{.name = "a", .ne = {16}}, {.name = "b", .offset = 32}}}.bytes()),
              AllOf(HasSubstr("overlaps"), HasSubstr("tensor b")));
}

TEST_F(Gguf, RefusesEveryTruncation) {
  const std::string bytes = gguf_example();
  const size_t needed = 288 + 32 + 36;  // the last padding may be missing
  for (size_t size = 0; size < needed; ++size) refusal(bytes.substr(0, size));
  EXPECT_NO_THROW(GgufFile::open(put(bytes.substr(0, needed))));
}

// Names longer than the format allows cannot be written either.
TEST_F(Gguf, WriterRefusesLongNames) {
  EXPECT_THAT(error_of([&] {
                GgufWriter(directory_ / "w.gguf", {}, {{std::string(64, 'n'), find_ggml_type("f32"), {1}}});
              }),
              HasSubstr("63 bytes"));
}

class GoldenGguf : public ::testing::Test {};

// Files of llama.cpp: every tensor where its own listing says, and our writer gives the same bytes back.
TEST_F(GoldenGguf, ReadAndWrittenAgainByteForByte) {
  PARE_NEEDS_SHARED("golden/gguf/quantized-a.json");
  TemporaryDirectory directory;
  const auto listing = nlohmann::json::parse(read_bytes(shared("golden/gguf/quantized-a.json")));
  int files = 0;
  for (const auto& at : std::filesystem::directory_iterator(shared("golden/gguf"))) {
    const std::string name = at.path().filename().string();
    if (!name.starts_with("a-") || !name.ends_with(".gguf")) continue;
    ++files;
    const auto file = GgufFile::open(at.path());
    const auto& expected = listing.at(name.substr(0, name.size() - 5)).at("tensors");
    ASSERT_EQ(file->entries().size(), expected.size()) << name;
    std::vector<GgufSlot> slots;
    for (size_t i = 0; i < expected.size(); ++i) {
      const GgufEntry& e = file->entries()[i];
      slots.push_back({e.name, e.type, e.shape});
      EXPECT_EQ(e.name, expected[i].at("name"));
      EXPECT_EQ(std::vector<int64_t>(e.shape.rbegin(), e.shape.rend()), expected[i].at("ne"));
      EXPECT_EQ(sha256_of(e.bytes), expected[i].at("sha256")) << name << " " << e.name;
      std::string type = expected[i].at("type");
      for (char& c : type) c = static_cast<char>(std::tolower(c));
      EXPECT_EQ(e.type->name, type);
    }
    GgufWriter writer(directory / "again.gguf", file->metadata(), slots);
    for (const GgufEntry& e : file->entries()) writer.add(e.name, e.bytes);
    writer.commit();
    EXPECT_TRUE(read_bytes(directory / "again.gguf") == read_bytes(at.path())) << name;
  }
  EXPECT_GT(files, 20);
}

}  // namespace
}  // namespace pare::test
