// PyTorch checkpoints, right and hostile. The files are made from the description in formats.md §5.
#include "pare/base/mapped_file.h"
#include "pare/base/system.h"
#include "pare/container/checkpoint.h"
#include "pare/container/torch_file.h"
#include "pare/container/torch_pickle.h"
#include "tests/container/torch_image.h"

namespace pare::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

std::string floats(const std::vector<float>& values) { return text_of(bytes_of(values)); }

class Torch : public testing::Test {
 protected:
  fs::path put(const std::string& bytes, const std::string& name = "pytorch_model.bin") {
    write_bytes(folder_ / name, bytes);
    return folder_ / name;
  }
  std::shared_ptr<const TorchFile> read(const std::string& pickled,
                                        const std::vector<std::pair<std::string, std::string>>& storages = {}) {
    return TorchFile::open(put(torch_file(pickled, storages)));
  }
  std::string refusal(const std::string& pickled,
                      const std::vector<std::pair<std::string, std::string>>& storages = {}) {
    return error_of([&] { read(pickled, storages); });
  }
  // Of a tensor over storage "0" of six floats.
  std::string refusal_of_view(int64_t offset, const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
    return refusal(pickle::whole(pickle::dict({{"w", pickle::tensor(six_, offset, shape, strides)}})),
                   {{"0", six_bytes_}});
  }
  const std::string six_ = pickle::storage("FloatStorage", "0", 6), six_bytes_ = floats({0, 1, 2, 3, 4, 5});
  TemporaryDirectory folder_;
};

std::vector<float> values_of(const TorchEntry& e) {
  const Matrix m = FloatTensor{e.dtype, e.shape, e.bytes}.to_matrix();
  return {m.values().begin(), m.values().end()};
}

TEST_F(Torch, ViewsOfOneStorage) {
  const auto file = read(pickle::whole(pickle::dict({{"whole", pickle::tensor(six_, 0, {2, 3}, {3, 1})},
                                                     {"turned", pickle::tensor(six_, 0, {3, 2}, {1, 3})},
                                                     {"row", pickle::tensor(six_, 3, {3}, {1})},
                                                     {"every_second", pickle::tensor(six_, 1, {3}, {2})},
                                                     {"scalar", pickle::tensor(six_, 4, {}, {})},
                                                     {"none", pickle::tensor(six_, 6, {0, 3}, {3, 1})},
                                                     {"spread", pickle::tensor(six_, 2, {2, 2}, {0, 1})}})),
                         {{"0", six_bytes_}});
  ASSERT_EQ(file->entries().size(), 7u);
  EXPECT_THAT(values_of(file->entries()[0]), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(values_of(file->entries()[1]), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_EQ(file->entries()[1].shape, (std::vector<int64_t>{3, 2}));
  EXPECT_THAT(values_of(file->entries()[2]), ElementsAre(3, 4, 5));
  EXPECT_THAT(values_of(file->entries()[3]), ElementsAre(1, 3, 5));
  EXPECT_THAT(values_of(file->entries()[4]), ElementsAre(4));
  EXPECT_TRUE(file->entries()[5].bytes.empty());
  EXPECT_THAT(values_of(file->entries()[6]), ElementsAre(2, 3, 2, 3));
}

TEST_F(Torch, StridedCopiesSurviveForgetting) {
  std::vector<float> values(4096 * 2);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const auto file = read(
      pickle::whole(
          pickle::dict({{"w", pickle::tensor(pickle::storage("FloatStorage", "0", 8192), 0, {4096, 2}, {1, 4096})}})),
      {{"0", floats(values)}});
  forget_pages(file->entries()[0].bytes);
  const auto got = values_of(file->entries()[0]);
  EXPECT_EQ(got[0], 0);
  EXPECT_EQ(got[1], 4096);
  EXPECT_EQ(got[8191], 8191);
}

TEST_F(Torch, EveryTypeOfStorage) {
  const std::vector<std::tuple<const char*, DType, int>> types = {
      {"FloatStorage", DType::f32, 4},   {"HalfStorage", DType::f16, 2}, {"BFloat16Storage", DType::bf16, 2},
      {"DoubleStorage", DType::f64, 8},  {"LongStorage", DType::i64, 8}, {"IntStorage", DType::i32, 4},
      {"ShortStorage", DType::i16, 2},   {"CharStorage", DType::i8, 1},  {"ByteStorage", DType::u8, 1},
      {"BoolStorage", DType::boolean, 1}};
  for (const auto& [name, type, width] : types) {
    const auto file =
        read(pickle::whole(pickle::dict({{"w", pickle::tensor(pickle::storage(name, "0", 3), 0, {3}, {1})}})),
             {{"0", std::string(static_cast<size_t>(3 * width), '\0')}});
    EXPECT_EQ(file->entries()[0].dtype, type) << name;
  }
}

// What torch writes for types that have no storage class: bytes, and the type beside the view.
TEST_F(Torch, UntypedStoragesWithADtype) {
  const std::string stored = pickle::tuple({pickle::text("storage"), pickle::global("torch.storage", "UntypedStorage"),
                                            pickle::text("0"), pickle::text("cpu"), pickle::integer(4)}) +
                             "Q";
  const std::string tensor = pickle::call(pickle::global("torch._utils", "_rebuild_tensor_v3"),
                                          {stored, pickle::integer(1), pickle::integers({3}), pickle::integers({1}),
                                           "\x89", pickle::ordered_dict(), pickle::global("torch", "float8_e4m3fn")});
  const auto file = read(pickle::whole(pickle::dict({{"w", tensor}})), {{"0", from_hex("00 38 40 b8")}});
  EXPECT_THAT(values_of(file->entries()[0]), ElementsAre(1, 2, -1));
}

TEST_F(Torch, WrappedDictsParametersMemoAndBuild) {
  const std::string parameter = pickle::call(pickle::global("torch._utils", "_rebuild_parameter"),
                                             {pickle::tensor(six_, 0, {6}, {1}), "\x88", pickle::ordered_dict()});
  // An OrderedDict filled by SETITEM, remembered, and given its _metadata by BUILD.
  const std::string weights = pickle::ordered_dict() + "q\x05" + pickle::text("w") + parameter + "s" +
                              pickle::dict({{"_metadata", pickle::ordered_dict()}}) + "b";
  for (const char* key : {"state_dict", "model"}) {
    const auto file =
        read(pickle::whole(pickle::dict({{"epoch", pickle::integer(3)}, {key, weights}})), {{"0", six_bytes_}});
    ASSERT_EQ(file->entries().size(), 1u);
    EXPECT_EQ(file->entries()[0].name, "w");
  }
  const std::string pairs = "](" + pickle::tuple({pickle::text("a"), pickle::tensor(six_, 0, {2}, {1})}) + "e";
  const auto listed =
      read(pickle::whole(pickle::call(pickle::global("collections", "OrderedDict"), {pairs})), {{"0", six_bytes_}});
  EXPECT_EQ(listed->entries()[0].name, "a");
}

TEST_F(Torch, TiedTensorsAreStoredOnce) {
  const auto tensor = pickle::tensor(six_, 0, {2, 3}, {3, 1});
  write_bytes(folder_ / "config.json", "{}");
  put(torch_file(pickle::whole(pickle::dict({{"embed.weight", tensor}, {"head.weight", tensor}})),
                 {{"0", six_bytes_}}));
  const auto model = Checkpoint::open(folder_.path());
  EXPECT_EQ(model->tensors().size(), 1u);
  EXPECT_EQ(model->aliases().at("head.weight"), "embed.weight");
  EXPECT_EQ(std::get<FloatTensor>(model->load("head.weight")).to_matrix()(1, 2), 5);
}

TEST_F(Torch, ForbiddenGlobalsAreNamed) {
  for (const auto& [module, name] : std::vector<std::pair<std::string, std::string>>{
           {"os", "system"}, {"builtins", "eval"}, {"torch", "load"}, {"torch._utils", "_rebuild_sparse_tensor"}}) {
    const std::string call = pickle::call(pickle::global(module, name), {pickle::text("echo")});
    EXPECT_THAT(refusal(pickle::whole(pickle::dict({{"w", call}}))), HasSubstr(module + "." + name));
    const std::string stacked = pickle::text(module) + pickle::text(name) + "\x93";
    EXPECT_THAT(refusal(pickle::whole(stacked)), HasSubstr(module + "." + name));
  }
  EXPECT_THAT(refusal(pickle::whole("c\x1b[2Jos\nsystem\n")),
              AllOf(HasSubstr("?[2Jos.system"), Not(HasSubstr("\x1b"))));
}

TEST_F(Torch, OpcodesAndValuesOutOfPlace) {
  EXPECT_THAT(refusal(pickle::whole("ios\nsystem\n")), HasSubstr("opcode"));  // INST
  EXPECT_THAT(refusal("\x80\x06}."), HasSubstr("protocol"));
  EXPECT_THAT(refusal(pickle::whole("")), HasSubstr("one value"));
  EXPECT_THAT(refusal(pickle::whole("}}")), HasSubstr("one value"));
  EXPECT_THAT(refusal(pickle::whole("t")), HasSubstr("did not open"));
  EXPECT_THAT(refusal(pickle::whole("\x87")), HasSubstr("more values than it has"));
  EXPECT_THAT(refusal(pickle::whole("}(Nu")), HasSubstr("too few"));
  EXPECT_THAT(refusal(pickle::whole("h\x07")), HasSubstr("did not remember"));
  EXPECT_THAT(refusal(pickle::whole("q\x01")), HasSubstr("more values"));
  EXPECT_THAT(refusal(pickle::whole("Nr\xff\xff\xff\x7f")), HasSubstr("too many memo entries"));
  EXPECT_THAT(refusal(pickle::whole("K\x05")), AllOf(HasSubstr("no state dict"), HasSubstr("an integer")));
  EXPECT_THAT(refusal(pickle::whole("}")), HasSubstr("holds no tensors"));
  EXPECT_THAT(refusal(pickle::whole("X" + raw<uint32_t>(3) +
                                    "a\xff"
                                    "b")),
              HasSubstr("UTF-8"));
  EXPECT_THAT(refusal(pickle::whole("X" + raw<uint32_t>(UINT32_MAX) + "ab")), HasSubstr("too long"));
  EXPECT_THAT(refusal("\x80\x02X" + raw<uint32_t>(100) + "ab"), HasSubstr("ends inside"));
  EXPECT_THAT(refusal(pickle::whole("\x8a\x09"
                                    "123456789")),
              HasSubstr("too large"));
  EXPECT_THAT(refusal(pickle::whole(pickle::global("torch", "float16") + ")R")), HasSubstr("cannot be called"));
  EXPECT_THAT(refusal(pickle::whole(pickle::text("f") + ")R")), HasSubstr("wrong kind"));
  EXPECT_THAT(refusal(pickle::whole(pickle::dict(
                          {{"w", pickle::tensor(six_, 0, {6}, {1})}, {"w", pickle::tensor(six_, 0, {2}, {1})}})),
                      {{"0", six_bytes_}}),
              HasSubstr("twice"));
}

TEST_F(Torch, ViewsOutsideTheirStorage) {
  for (const std::string& text :
       {refusal_of_view(0, {7}, {1}), refusal_of_view(1, {6}, {1}), refusal_of_view(-1, {2}, {1}),
        refusal_of_view(0, {2, 3}, {4, 1}), refusal_of_view(0, {2}, {-1}), refusal_of_view(0, {-1}, {1}),
        refusal_of_view(0, {2}, {1, 1}), refusal_of_view(INT64_MAX, {2}, {1}), refusal_of_view(0, {2}, {INT64_MAX}),
        refusal_of_view(0, {int64_t{1} << 40, int64_t{1} << 40}, {0, 0})})
    EXPECT_THAT(text, HasSubstr("outside its storage"));
}

TEST_F(Torch, StoragesThatAreNotThere) {
  const std::string whole = pickle::whole(pickle::dict({{"w", pickle::tensor(six_, 0, {6}, {1})}}));
  EXPECT_THAT(refusal(whole), AllOf(HasSubstr("lacks"), HasSubstr("archive/data/0"), HasSubstr("tensor w")));
  EXPECT_THAT(refusal(whole, {{"0", "1234"}}), AllOf(HasSubstr("24 bytes"), HasSubstr("4 bytes")));
  EXPECT_THAT(refusal(pickle::whole(
                  pickle::dict({{"w", pickle::tensor(pickle::storage("LongStorage", "0", INT64_MAX), 0, {1}, {1})}}))),
              HasSubstr("overflows"));
}

// Four bytes that claim to be a terabyte, and cycles, groups and memos without end.
TEST_F(Torch, AmplificationIsRefusedInLittleMemory) {
  const int64_t before = peak_memory_bytes();
  const std::string one = pickle::storage("FloatStorage", "0", 1);
  EXPECT_THAT(refusal(pickle::whole(pickle::dict({{"w", pickle::tensor(one, 0, {1 << 20, 1 << 20}, {0, 0})}})),
                      {{"0", floats({1})}}),
              HasSubstr("larger than the file"));
  EXPECT_THAT(refusal(pickle::whole("]q\x01h\x01\x61")), HasSubstr("no state dict"));  // a list inside itself
  EXPECT_THAT(refusal(pickle::whole("}q\x01" + pickle::text("model") + "h\x01s")), HasSubstr("holds no tensors"));
  EXPECT_THAT(refusal(pickle::whole(std::string(2'000'000, '('))), HasSubstr("too many marks"));
  EXPECT_THAT(refusal(pickle::whole(std::string(2'000'000, ']'))), HasSubstr("too many values"));
  EXPECT_THAT(refusal(pickle::whole("N" + std::string(1'400'000, '\x85'))), HasSubstr("no state dict"));  // ((((…))))
  std::string memo = "N", filled;
  for (int i = 0; i < 1'000'001; ++i) memo += '\x94';
  for (int i = 0; i < 100'001; ++i) filled += "]Na";
  EXPECT_THAT(refusal(pickle::whole(memo)), HasSubstr("too many memo"));
  EXPECT_THAT(refusal(pickle::whole(filled)), HasSubstr("too many lists"));
  EXPECT_LT(peak_memory_bytes() - before, int64_t{96} << 20);  // the files themselves and this test's strings included
}

TEST_F(Torch, DamagedArchives) {
  const std::string good =
      torch_file(pickle::whole(pickle::dict({{"w", pickle::tensor(six_, 0, {6}, {1})}})), {{"0", six_bytes_}});
  ASSERT_NO_THROW(TorchFile::open(put(good)));
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(error_of([&] { TorchFile::open(put(good.substr(0, length))); }).empty()) << length;

  const std::string pickled = pickle::whole("}");
  EXPECT_THAT(error_of([&] { TorchFile::open(put(zip({{.name = "a/data.pkl", .data = pickled, .method = 8}}))); }),
              HasSubstr("compressed"));
  EXPECT_THAT(error_of([&] { TorchFile::open(put(zip({{.name = "a/data.pkl", .data = pickled, .flags = 1}}))); }),
              HasSubstr("encrypted"));
  EXPECT_THAT(error_of([&] { TorchFile::open(put(zip({{"a/x", "1"}, {"a/x", "2"}}))); }), HasSubstr("twice"));
  EXPECT_THAT(error_of([&] { TorchFile::open(put(zip({{"a/x", "1"}}))); }), HasSubstr("no PyTorch checkpoint"));
  EXPECT_THAT(error_of([&] {
                TorchFile::open(put(zip({{"a/data.pkl", pickled}, {"a/constants.pkl", ""}})));
              }),
              HasSubstr("TorchScript"));
  EXPECT_THAT(error_of([&] {
                TorchFile::open(put(zip({{"a/data.pkl", pickled}, {"a/byteorder", "big"}})));
              }),
              HasSubstr("byte order"));
  EXPECT_THAT(error_of([&] { TorchFile::open(put(from_hex("80028a0a6cfc9c46f9206aa85019802e"))); }),
              AllOf(HasSubstr("before 1.6"), HasSubstr("safe_serialization")));

  std::string overlapping = zip({{"a/x", "1234"}, {"a/y", "5678"}});
  const size_t second = overlapping.rfind("PK\x01\x02");  // its local header moves onto the first entry's
  overlapping.replace(second + 42, 4, raw<uint32_t>(0));
  EXPECT_THAT(error_of([&] { TorchFile::open(put(overlapping)); }), HasSubstr("overlap"));
}

// Every byte changed in some way, a thousand times in all: an Error or a file that is read, nothing else.
TEST_F(Torch, MutatedFiles) {
  const std::string good = torch_file(pickle::whole(pickle::dict({{"w", pickle::tensor(six_, 0, {3, 2}, {1, 3})},
                                                                  {"v", pickle::tensor(six_, 0, {6}, {1})}})),
                                      {{"0", six_bytes_}});
  std::mt19937 random(11);
  int refused = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bad = good;
    const size_t at = i < static_cast<int>(good.size()) ? static_cast<size_t>(i) : random() % good.size();
    bad[at] = static_cast<char>(bad[at] ^ (1 + random() % 255));
    try {
      TorchFile::open(put(bad));
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST_F(Torch, ShardsAndTheirIndex) {
  write_bytes(folder_ / "config.json", "{}");
  const auto shard = [&](const std::string& name) {
    return torch_file(pickle::whole(pickle::dict({{name, pickle::tensor(six_, 0, {6}, {1})}})), {{"0", six_bytes_}});
  };
  put(shard("a"), "pytorch_model-00001-of-00002.bin");
  put(shard("b"), "pytorch_model-00002-of-00002.bin");
  put(shard("x"), "training_args.bin");
  EXPECT_THAT(error_of([&] { Checkpoint::open(folder_.path()); }), AllOf(HasSubstr("several"), HasSubstr("index")));
  write_bytes(
      folder_ / "pytorch_model.bin.index.json",
      R"({"metadata":{},"weight_map":{"a":"pytorch_model-00001-of-00002.bin","b":"pytorch_model-00002-of-00002.bin"}})");
  const auto model = Checkpoint::open(folder_.path());
  EXPECT_TRUE(model->has("a") && model->has("b") && !model->has("x"));
  fs::remove(folder_ / "pytorch_model-00002-of-00002.bin");
  EXPECT_THAT(error_of([&] { Checkpoint::open(folder_.path()); }), HasSubstr("shard of the model is missing"));
}

// Files written by torch 2.13, read as the zip and pickle modules of Python read them.
TEST_F(Torch, GoldenFiles) {
  PARE_NEEDS_SHARED("golden/logits/llama_gqa_f16_bin");
  const auto model = Checkpoint::open(shared("golden/logits/llama_gqa_f16_bin"));
  const StoredTensor* head = model->find("lm_head.weight");
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->type, "f16");
  EXPECT_EQ(head->shape, (std::vector<int64_t>{320, 64}));
  EXPECT_EQ(model->tensors().size(), 21u);
  EXPECT_TRUE(Checkpoint::open(shared("golden/logits/gpt2/pytorch_model.bin"))->has("transformer.wte.weight"));
}

}  // namespace
}  // namespace pare::test
