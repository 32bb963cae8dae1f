#include "pare/base/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <set>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"
#include "pare/base/threads.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

namespace fs = std::filesystem;
using test::TemporaryDirectory;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename());
  return names;
}

template <class Action>
ErrorInfo error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.info();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(OutputFile, AppearsOnlyOnCommit) {
  const TemporaryDirectory directory;
  {
    OutputFile out(directory / "a");
    out.append("first ");
    out.append("second");
    EXPECT_EQ(names_in(directory.path()).count("a"), 0u);
    EXPECT_THAT(names_in(directory.path()), ElementsAre(out.temporary_path().filename().string()));
    out.commit();
    EXPECT_THAT(names_in(directory.path()), ElementsAre("a"));
  }
  EXPECT_EQ(read_text_file(directory / "a"), "first second");
}

TEST(OutputFile, LeavesNothingWhenAbandoned) {
  const TemporaryDirectory directory;
  try {
    OutputFile out(directory / "a", 4096);
    out.append("half of it");
    throw std::runtime_error("something went wrong");
  } catch (const std::runtime_error&) {
  }
  EXPECT_THAT(names_in(directory.path()), IsEmpty());
}

TEST(OutputFile, TheOldFileStaysUntilCommit) {
  const TemporaryDirectory directory;
  write_file(directory / "a", "old");
  {
    OutputFile out(directory / "a");
    out.append("never finished");
    EXPECT_EQ(read_text_file(directory / "a"), "old");
  }
  EXPECT_EQ(read_text_file(directory / "a"), "old");
  write_file(directory / "a", "new");
  EXPECT_EQ(read_text_file(directory / "a"), "new");
  EXPECT_THAT(names_in(directory.path()), ElementsAre("a"));
}

TEST(OutputFile, DisjointRangesFromManyThreads) {
  constexpr int64_t kParts = 64, kBytes = 1000;
  const TemporaryDirectory directory;
  OutputFile out(directory / "a", kParts * kBytes);
  parallel_for(kParts, [&](int64_t i) {
    const std::vector<std::byte> part(kBytes, static_cast<std::byte>(i));
    out.write_at(static_cast<uint64_t>(i * kBytes), part);
  });
  out.commit();
  const std::string text = read_text_file(directory / "a");
  ASSERT_EQ(text.size(), static_cast<size_t>(kParts * kBytes));
  for (size_t i = 0; i < text.size(); ++i) ASSERT_EQ(text[i], static_cast<char>(i / kBytes));
}

TEST(OutputFile, ReservesItsSizeWithZeros) {
  const TemporaryDirectory directory;
  OutputFile out(directory / "a", 10);
  out.append("abc");
  out.commit();
  EXPECT_EQ(read_text_file(directory / "a"), std::string("abc") + std::string(7, '\0'));
}

TEST(OutputFile, SaysWhatIsWrongWithItsPlace) {
  const TemporaryDirectory directory;
  const ErrorInfo missing = error_of([&] { OutputFile out(directory / "no/such/folder/a"); });
  EXPECT_EQ(missing.code, ExitCode::bad_input);
  EXPECT_THAT(missing.where, HasSubstr("no/such/folder/a"));
  write_file(directory / "file", "");
  EXPECT_EQ(error_of([&] { OutputFile out(directory / "file/a"); }).code, ExitCode::bad_input);
}

// A limit on file size stands in for a full disk: both end in the same place.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  void (*old_handler_)(int);
  rlimit old_{};
};

TEST(OutputFile, AFullDiskIsNoRoomAndLeavesNothing) {
  const TemporaryDirectory directory;
  {
    const FileSizeLimit limit(1 << 16);
    const ErrorInfo reserved = error_of([&] { OutputFile out(directory / "a", 1 << 20); });
    EXPECT_EQ(reserved.code, ExitCode::no_room);
    EXPECT_THAT(names_in(directory.path()), IsEmpty());
    const ErrorInfo grown = error_of([&] {
      OutputFile out(directory / "a");
      out.append(std::string(1 << 20, 'x'));
    });
    EXPECT_EQ(grown.code, ExitCode::no_room);
    EXPECT_THAT(grown.remedy, HasSubstr("free some space"));
  }
  EXPECT_THAT(names_in(directory.path()), IsEmpty());
}

TEST(OutputDirectory, AppearsOnlyOnCommit) {
  const TemporaryDirectory directory;
  {
    OutputDirectory out(directory / "model/", false);
    write_file(out.file("config.json"), "{}");
    EXPECT_FALSE(fs::exists(directory / "model"));
    out.commit();
  }
  EXPECT_THAT(names_in(directory.path()), ElementsAre("model"));
  EXPECT_THAT(names_in(directory / "model"), ElementsAre("config.json"));
}

TEST(OutputDirectory, LeavesNothingWhenAbandoned) {
  const TemporaryDirectory directory;
  {
    OutputDirectory out(directory / "model", false);
    write_file(out.file("config.json"), "{}");
  }
  EXPECT_THAT(names_in(directory.path()), IsEmpty());
}

TEST(OutputDirectory, ReplacesOnlyWhenToldAndOnlyOnCommit) {
  const TemporaryDirectory directory;
  fs::create_directory(directory / "model");
  write_file(directory / "model/old", "");
  const ErrorInfo refused = error_of([&] { OutputDirectory out(directory / "model", false); });
  EXPECT_THAT(refused.remedy, HasSubstr("--force"));
  {
    OutputDirectory out(directory / "model", true);
    write_file(out.file("never"), "");
  }
  EXPECT_THAT(names_in(directory / "model"), ElementsAre("old"));
  {
    OutputDirectory out(directory / "model", true);
    write_file(out.file("new"), "");
    EXPECT_THAT(names_in(directory / "model"), ElementsAre("old"));
    out.commit();
  }
  EXPECT_THAT(names_in(directory / "model"), ElementsAre("new"));
  EXPECT_THAT(names_in(directory.path()), ElementsAre("model"));
}

TEST(CheckOutputPath, RefusesBeforeAnyWork) {
  const TemporaryDirectory directory;
  EXPECT_NO_THROW(check_output_path(directory / "a", false));
  write_file(directory / "a", "");
  EXPECT_THAT(error_of([&] { check_output_path(directory / "a", false); }).what, HasSubstr("exists"));
  EXPECT_NO_THROW(check_output_path(directory / "a", true));
  fs::create_symlink("nowhere", directory / "link");  // a dangling link is something that exists
  EXPECT_THROW(check_output_path(directory / "link", false), Error);
  EXPECT_THAT(error_of([&] { check_output_path(directory / "none/a", true); }).what, HasSubstr("does not exist"));
}

TEST(CheckOutputPath, RefusesAFolderThatMayNotBeWritten) {
  constexpr uid_t kNobody = 65534;  // root may write everywhere
  const TemporaryDirectory directory;
  fs::permissions(directory.path(), fs::perms(0755));
  fs::create_directory(directory / "closed");
  fs::permissions(directory / "closed", fs::perms(0555));
  const auto refused_in_child = [&] {
    if (::geteuid() == 0 && ::setuid(kNobody) != 0) ::_exit(2);
    try {
      check_output_path(directory / "closed/a", false);
    } catch (const Error& error) {
      ::_exit(error.info().what.find("no permission") == std::string::npos ? 3 : 0);
    }
    ::_exit(4);
  };
  EXPECT_EXIT(refused_in_child(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace pare
