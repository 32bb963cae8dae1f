#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <fstream>
#include <set>

#include "pare/base/error.h"
#include "pare/calibrate/windows.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

std::string message_of(const fs::path& path) {
  try {
    read_corpus(path);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

fs::path write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string gzipped(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(text.size() + 100, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd_packed(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

TEST(Corpus, BuiltInTextIsTheFilesOfTheRepository) {
  const Corpus corpus = builtin_corpus();
  EXPECT_GT(corpus.documents.size(), 100u);
  size_t bytes = 0;
  for (const std::string& d : corpus.documents) {
    bytes += d.size();
    EXPECT_EQ(d.find("\n---\n"), std::string::npos);
  }
  size_t on_disk = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(PARE_SOURCE_DIR) / "builtin_text"))
    if (entry.path().extension() == ".txt") on_disk += entry.file_size();
  EXPECT_GT(bytes, on_disk * 98 / 100);
  EXPECT_LE(bytes, on_disk + corpus.documents.size());
}

TEST(Corpus, Formats) {
  test::TemporaryDirectory directory;
  const std::string lines = "{\"text\": \"one\"}\n\n{\"content\": \"two\"}\n\"three\"\n";
  EXPECT_THAT(read_corpus(write(directory / "a.txt", "plain text")).documents, ElementsAre("plain text"));
  EXPECT_THAT(read_corpus(write(directory / "a.jsonl", lines)).documents, ElementsAre("one", "two", "three"));
  EXPECT_THAT(read_corpus(write(directory / "a.json", R"(["x", {"text": "y"}, " "])")).documents,
              ElementsAre("x", "y"));
  EXPECT_THAT(read_corpus(write(directory / "a.jsonl.gz", gzipped(lines))).documents,
              ElementsAre("one", "two", "three"));
  EXPECT_THAT(read_corpus(write(directory / "b.txt.gz", gzipped("left ") + gzipped("right"))).documents,
              ElementsAre("left right"));
  EXPECT_THAT(read_corpus(write(directory / "a.txt.zst", zstd_packed("packed"))).documents, ElementsAre("packed"));
}

TEST(Corpus, DamagedFilesSayWhere) {
  test::TemporaryDirectory directory;
  EXPECT_THAT(message_of(write(directory / "e.txt", "")), HasSubstr("empty"));
  EXPECT_THAT(message_of(write(directory / "u.txt", "ok \xff")), HasSubstr("u.txt at byte 3"));
  EXPECT_THAT(message_of(write(directory / "l.jsonl", "{\"text\": \"a\"}\n{\"other\": 1}\n")), HasSubstr("line 2"));
  EXPECT_THAT(message_of(write(directory / "b.jsonl", "{\"text\": \"a\"}\n{\"text\": \n")), HasSubstr("line 2"));
  EXPECT_THAT(message_of(write(directory / "o.json", "{}")), HasSubstr("array"));
  const std::string packed = gzipped(std::string(5000, 'x') + "y");
  EXPECT_THAT(message_of(write(directory / "t.txt.gz", packed.substr(0, packed.size() - 12))), HasSubstr("gzip"));
  const std::string frame = zstd_packed("some text that is packed");
  EXPECT_THAT(message_of(write(directory / "t.txt.zst", frame.substr(0, frame.size() - 3))), HasSubstr("zstd"));
}

TEST(Windows, AreEvenlySpacedAndSeeded) {
  const auto tokenizer = Tokenizer::from_directory(test::demo_model());
  const Corpus corpus = builtin_corpus();
  const TokenWindows all = cut_windows(corpus, *tokenizer, 1000000, 128, 0);
  EXPECT_EQ(static_cast<int64_t>(all.windows.size()), all.available);
  const TokenWindows some = cut_windows(corpus, *tokenizer, 10, 128, 0);
  ASSERT_EQ(some.windows.size(), 10u);
  for (const auto& w : some.windows) {
    EXPECT_EQ(w.size(), 128u);
    EXPECT_EQ(w.front(), *tokenizer->bos());
    EXPECT_NE(std::find(all.windows.begin(), all.windows.end(), w), all.windows.end());
  }
  EXPECT_EQ(std::set<std::vector<int32_t>>(some.windows.begin(), some.windows.end()).size(), 10u);
  EXPECT_EQ(cut_windows(corpus, *tokenizer, 10, 128, 0).windows, some.windows);
  EXPECT_NE(cut_windows(corpus, *tokenizer, 10, 128, 3).windows, some.windows);
}

TEST(Windows, ShortTextGivesOneShortWindow) {
  const auto tokenizer = Tokenizer::from_directory(test::demo_model());
  const Corpus corpus{.name = "short", .documents = {"Once upon a time there was a cat."}, .sha256 = {}};
  const TokenWindows cut = cut_windows(corpus, *tokenizer, 8, 512, 5);
  ASSERT_EQ(cut.windows.size(), 1u);
  EXPECT_EQ(cut.windows[0], tokenizer->encode(corpus.documents[0]));
  EXPECT_EQ(cut.length, static_cast<int64_t>(cut.windows[0].size()));
}

}  // namespace
}  // namespace pare
