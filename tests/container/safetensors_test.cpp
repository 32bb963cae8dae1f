#include "pare/container/safetensors.h"

#include <map>
#include <stdexcept>

#include "tests/container/files.h"

namespace pare::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Safetensors : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& bytes) {
    write_bytes(directory_ / "t.safetensors", bytes);
    return directory_ / "t.safetensors";
  }
  std::string refusal(const std::string& bytes) {
    const auto path = put(bytes);
    const std::string text = error_of([&] { SafetensorsFile::open(path); });
    EXPECT_THAT(text, HasSubstr("t.safetensors"));
    return text;
  }
  std::string refusal(const std::string& header, const std::string& data) { return refusal(safetensors(header, data)); }
  TemporaryDirectory directory_;
};

// formats.md §4
const std::string kExampleHeader =
    R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]}}  )";
const std::string kExample = from_hex("7000000000000000") + kExampleHeader + from_hex("0000c03f003c00c000380000");

TEST_F(Safetensors, ReadsTheExampleOfTheSpecification) {
  ASSERT_EQ(kExample.size(), 132u);
  const auto file = SafetensorsFile::open(put(kExample));
  ASSERT_EQ(file->entries().size(), 2u);
  EXPECT_EQ(file->entries()[0].name, "b");
  EXPECT_EQ(file->entries()[1].dtype, DType::f16);
  EXPECT_EQ(file->entries()[1].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(text_of(file->entries()[1].bytes), from_hex("003c00c000380000"));
}

TEST_F(Safetensors, WritesTheExampleOfTheSpecification) {
  const std::vector<SafetensorsSlot> slots{{"a", DType::f16, {2, 2}}, {"b", DType::f32, {1}}};
  SafetensorsWriter writer(directory_ / "w.safetensors", slots, {});
  writer.add("a", bytes_of(from_hex("003c00c000380000")));
  writer.add("b", bytes_of(from_hex("0000c03f")));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "w.safetensors"));
  writer.commit();
  EXPECT_EQ(read_bytes(directory_ / "w.safetensors"), kExample);
  EXPECT_EQ(SafetensorsWriter::file_bytes(slots, {}), kExample.size());
}

// The demo model was saved by the reference implementation: writing the same tensors gives the same bytes.
TEST_F(Safetensors, WritesTheBytesOfTheReference) {
  const auto source = demo_model() / "model.safetensors";
  const auto file = SafetensorsFile::open(source);
  std::vector<SafetensorsSlot> slots;
  for (const auto& e : file->entries()) slots.push_back({e.name, e.dtype, e.shape});
  SafetensorsWriter writer(directory_ / "again.safetensors", slots, file->metadata());
  for (auto e = file->entries().rbegin(); e != file->entries().rend(); ++e) writer.add(e->name, e->bytes);
  writer.commit();
  EXPECT_TRUE(read_bytes(directory_ / "again.safetensors") == read_bytes(source));
}

TEST_F(Safetensors, WriterHoldsItsUsersToThePlan) {
  SafetensorsWriter writer(directory_ / "w.safetensors", {{"a", DType::f32, {2}}});
  EXPECT_THROW(writer.commit(), std::logic_error);
  EXPECT_THROW(writer.add("b", {}), std::logic_error);
  EXPECT_THROW(writer.add("a", bytes_of(std::string(7, 'x'))), std::logic_error);
  writer.add("a", bytes_of(std::string(8, 'x')));
  EXPECT_THROW(writer.add("a", bytes_of(std::string(8, 'x'))), std::logic_error);
  EXPECT_THROW(SafetensorsWriter(directory_ / "v", {{"a", DType::f32, {2}}, {"a", DType::u8, {1}}}), std::logic_error);
}

TEST_F(Safetensors, AnUncommittedFileLeavesNothing) {
  { SafetensorsWriter writer(directory_ / "w.safetensors", {{"a", DType::f32, {2}}}); }
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_F(Safetensors, EveryTypeRoundTrips) {
  std::vector<SafetensorsSlot> slots;
  for (const DTypeInfo& t : all_dtypes()) slots.push_back({std::string(t.name), t.type, {2, 4}});
  SafetensorsWriter writer(directory_ / "w.safetensors", slots, {{"format", "pt"}, {"quote\"", "ü\n"}});
  for (const SafetensorsSlot& slot : slots)
    writer.add(slot.name, bytes_of(std::string(slot_bytes(slot), slot.name[0])));
  writer.commit();
  const auto file = SafetensorsFile::open(directory_ / "w.safetensors");
  EXPECT_EQ(file->metadata().at("quote\""), "ü\n");
  ASSERT_EQ(file->entries().size(), slots.size());
  for (const auto& e : file->entries()) {
    EXPECT_EQ(info(e.dtype).name, e.name);
    EXPECT_EQ(text_of(e.bytes), std::string(8 * static_cast<size_t>(info(e.dtype).bits) / 8, e.name[0]));
  }
}

TEST_F(Safetensors, LegalOdditiesAreRead) {
  const auto file = SafetensorsFile::open(put(safetensors(
      R"(  {"s":{"dtype":"U8","shape":[],"data_offsets":[0,1],"extra":{"deep":[[1.5,{}],"x"]}},)"
      R"("e":{"dtype":"F32","shape":[0,7],"data_offsets":[1,1]},"u":{"data_offsets":[1,5],"shape":[1],"dtype":"F32"}} )",
      "\x07\x01\x02\x03\x04")));
  ASSERT_EQ(file->entries().size(), 3u);
  EXPECT_TRUE(file->entries()[0].shape.empty());
  EXPECT_TRUE(file->entries()[1].bytes.empty());
  EXPECT_EQ(file->entries()[2].name, "u");
  EXPECT_TRUE(SafetensorsFile::open(put(safetensors("{}", "")))->entries().empty());
}

TEST_F(Safetensors, RefusesAWrongHeaderLength) {
  EXPECT_THAT(refusal(""), HasSubstr("ends inside"));
  EXPECT_THAT(refusal("1234567"), HasSubstr("ends inside"));
  EXPECT_THAT(refusal(raw<uint64_t>(3) + "{}"), AllOf(HasSubstr("length"), HasSubstr("got 3")));
  EXPECT_THAT(refusal(raw<uint64_t>(UINT64_MAX) + "{}"), HasSubstr("length"));
  EXPECT_THAT(refusal(raw<uint64_t>(UINT64_MAX - 7) + "{}"), HasSubstr("length"));
  EXPECT_THAT(refusal(raw<uint64_t>(100'000'001) + "{}"), HasSubstr("length"));
}

TEST_F(Safetensors, RefusesWhatIsNoHeader) {
  EXPECT_THAT(refusal("", ""), HasSubstr("JSON"));
  EXPECT_THAT(refusal("{", ""), HasSubstr("JSON"));
  EXPECT_THAT(refusal("[]", ""), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal("7", ""), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal("{}{}", ""), HasSubstr("JSON"));
  EXPECT_THAT(refusal("{\"a\xff\":1}", ""), HasSubstr("JSON"));
  EXPECT_THAT(refusal(R"({"a":1})", ""), AllOf(HasSubstr("tensor a"), HasSubstr("not a JSON object")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1]}})", ""), HasSubstr("no data_offsets"));
  EXPECT_THAT(refusal(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", "1234"), HasSubstr("no dtype"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", "1234"), HasSubstr("no shape"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", "1234"), HasSubstr("wrong kind"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "1234"),
              AllOf(HasSubstr("dtype"), HasSubstr("F33")));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})", ""), HasSubstr("__metadata__"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":{}}})", ""), HasSubstr("__metadata__"));
}

TEST_F(Safetensors, RefusesDeepNesting) {
  const std::string deep = R"({"a":{"x":)" + std::string(100000, '[') + std::string(100000, ']') + "}}";
  EXPECT_THAT(refusal(deep, ""), HasSubstr("nested too deeply"));
}

TEST_F(Safetensors, RefusesNumbersThatAreNoSizes) {
  const auto with_shape = [&](const std::string& shape) {
    return refusal(R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,4]}})", "1234");
  };
  EXPECT_THAT(with_shape("[-1]"), HasSubstr("whole numbers"));
  EXPECT_THAT(with_shape("[1.0]"), HasSubstr("whole numbers"));
  EXPECT_THAT(with_shape("[18446744073709551616]"), HasSubstr("whole numbers"));
  EXPECT_THAT(with_shape("[\"1\"]"), HasSubstr("whole numbers"));
  EXPECT_THAT(with_shape("[[1]]"), HasSubstr("whole numbers"));
  EXPECT_THAT(with_shape("1"), HasSubstr("wrong kind"));
  EXPECT_THAT(with_shape("[9223372036854775808]"), HasSubstr("overflows"));
  EXPECT_THAT(with_shape("[4294967296,4294967296]"), HasSubstr("overflows"));
  EXPECT_THAT(with_shape("[4611686018427387904]"), HasSubstr("overflows"));  // 2^62 elements of 32 bits
  EXPECT_THAT(with_shape("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), HasSubstr("too many"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "12"),
              HasSubstr("whole number of bytes"));
}

TEST_F(Safetensors, RefusesWrongOffsets) {
  const auto with_offsets = [&](const std::string& offsets) {
    return refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + offsets + "}}", "1234");
  };
  EXPECT_THAT(with_offsets("[0]"), HasSubstr("no pair"));
  EXPECT_THAT(with_offsets("[0,4,4]"), HasSubstr("no pair"));
  EXPECT_THAT(with_offsets("[4,0]"), HasSubstr("outside"));
  EXPECT_THAT(with_offsets("[0,8]"), HasSubstr("outside"));
  EXPECT_THAT(with_offsets("[18446744073709551612,18446744073709551615]"), HasSubstr("outside"));
  EXPECT_THAT(with_offsets("[0,3]"), AllOf(HasSubstr("expected 4 bytes"), HasSubstr("got 3 bytes")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "12"), HasSubstr("hole"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                      R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                      "123"),
              AllOf(HasSubstr("overlaps"), HasSubstr("tensor b")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "12"), HasSubstr("no tensor"));
}

TEST_F(Safetensors, RefusesDuplicates) {
  const std::string entry = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(refusal(R"({"a":)" + entry + R"(,"a":)" + entry + "}", ""), AllOf(HasSubstr("twice"), HasSubstr("a")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", ""), HasSubstr("twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{},"__metadata__":{}})", ""), HasSubstr("twice"));
}

// A hundred thousand tensors (a large mixture of experts, quantized) must not take quadratic time.
TEST_F(Safetensors, ManyTensors) {
  std::vector<SafetensorsSlot> slots;
  for (int i = 0; i < 100'000; ++i)
    slots.push_back({"model.layers.0.mlp.experts." + std::to_string(i) + ".down_proj.qweight", DType::u8, {0}});
  SafetensorsWriter writer(directory_ / "w.safetensors", slots);
  for (const auto& slot : slots) writer.add(slot.name, {});
  writer.commit();
  EXPECT_EQ(SafetensorsFile::open(directory_ / "w.safetensors")->entries().size(), slots.size());
}

TEST_F(Safetensors, MissingFileAndDirectory) {
  EXPECT_THAT(error_of([&] { SafetensorsFile::open(directory_ / "none"); }), HasSubstr("none"));
  EXPECT_THAT(error_of([&] { SafetensorsFile::open(directory_.path()); }), HasSubstr("regular file"));
}

}  // namespace
}  // namespace pare::test
