#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "pare/base/byte_reader.h"
#include "pare/base/mapped_file.h"
#include "pare/base/output.h"
#include "pare/base/sha256.h"
#include "pare/base/system.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

using test::TemporaryDirectory;
using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(ByteReader, ReadsLittleEndianInOrder) {
  const std::string text("\x01\x02\x03\x04\x05\x06\x07tail", 11);
  ByteReader reader(bytes_of(text), "a.gguf");
  EXPECT_EQ(reader.read<uint8_t>("a"), 1);
  EXPECT_EQ(reader.read<uint16_t>("b"), 0x0302);
  EXPECT_EQ(reader.read<uint32_t>("c"), 0x07060504u);
  EXPECT_EQ(reader.offset(), 7u);
  EXPECT_EQ(reader.left(), 4u);
  EXPECT_EQ(reader.take(4, "d").size(), 4u);
  EXPECT_EQ(reader.left(), 0u);
  EXPECT_TRUE(reader.take(0, "nothing").empty());
}

TEST(ByteReader, NeverReadsPastTheEnd) {
  ByteReader reader(bytes_of("12345"), "a.gguf");
  reader.take(3, "head");
  for (const uint64_t count : {uint64_t{3}, uint64_t{1} << 32, UINT64_MAX, UINT64_MAX - 2}) {
    try {
      reader.take(count, "a key");
      FAIL() << count;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("ends inside a key"));
      EXPECT_THAT(error.info().where, HasSubstr("a.gguf at byte 3"));
      EXPECT_EQ(error.info().got, "2 left");
    }
  }
  EXPECT_THROW(reader.read<uint32_t>("a number"), Error);
  EXPECT_EQ(reader.left(), 2u);  // a refused read takes nothing
  EXPECT_EQ(reader.read<uint16_t>("a number"), 0x3534);
}

TEST(MappedFile, HoldsTheBytesOfTheFile) {
  const TemporaryDirectory directory;
  std::string text(100000, 'x');
  text.back() = 'y';
  write_file(directory / "a", text);
  const auto file = MappedFile::open(directory / "a");
  ASSERT_EQ(file->bytes().size(), text.size());
  prefetch_pages(file->bytes());
  forget_pages(file->bytes());  // pages come back when touched
  forget_pages(file->bytes().subspan(5000, 10));
  EXPECT_EQ(file->bytes().back(), std::byte{'y'});
  EXPECT_EQ(read_text_file(directory / "a"), text);
  EXPECT_THROW(read_text_file(directory / "a", text.size() - 1), Error);
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const TemporaryDirectory directory;
  write_file(directory / "empty", "");
  EXPECT_TRUE(MappedFile::open(directory / "empty")->bytes().empty());
  EXPECT_THROW(MappedFile::open(directory / "missing"), Error);
  EXPECT_THROW(MappedFile::open(directory.path()), Error);
  EXPECT_THROW(MappedFile::open("/dev/zero"), Error);
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(MappedFile::open(directory / "pipe"), Error);  // and does not wait for a writer
}

// FIPS 180-2, appendix B, and the empty message.
TEST(Sha256, KnownMessages) {
  EXPECT_EQ(sha256_of({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of(bytes_of("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_of(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_of(bytes_of(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PartsAndFilesGiveTheSameHash) {
  const TemporaryDirectory directory;
  const std::string text((size_t{16} << 20) + 100001, 'q');  // longer than one chunk of sha256_of_file
  write_file(directory / "a", text);
  Sha256 hash;
  for (size_t at = 0; at < text.size(); at += 77777) hash.update(bytes_of(std::string_view(text).substr(at, 77777)));
  EXPECT_EQ(hash.hex(), sha256_of(bytes_of(text)));
  EXPECT_EQ(sha256_of_file(directory / "a"), sha256_of(bytes_of(text)));
}

TEST(System, ReportsPlausibleAmounts) {
  const int64_t current = current_memory_bytes();
  EXPECT_GT(current, 100000);
  EXPECT_GE(peak_memory_bytes(), current);
  EXPECT_GT(available_memory_bytes(), 1 << 20);
  const TemporaryDirectory directory;
  EXPECT_GT(free_disk_bytes(directory.path()), 0);
  EXPECT_GT(free_disk_bytes(directory / "not/there/yet"), 0);
}

}  // namespace
}  // namespace pare
