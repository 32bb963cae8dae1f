// Disks that fill up and folders that may not be written: one Error, the right exit code, nothing left behind.
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "pare/container/container.h"
#include "tests/container/files.h"

namespace pare::test {
namespace {

namespace fs = std::filesystem;

// A file system of one megabyte, or the reason why there is none.
class SmallDisk {
 public:
  SmallDisk() : mounted_(::mount("pare-test", directory_.path().c_str(), "tmpfs", 0, "size=1m") == 0) {}
  ~SmallDisk() {
    if (mounted_) ::umount(directory_.path().c_str());
  }
  bool mounted() const { return mounted_; }
  const fs::path& path() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
  bool mounted_;
};

// No file of this process may grow beyond so many bytes.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

OutputPlan plan_of(int64_t rows) {
  OutputPlan plan;
  plan.tensors = {{"blk.0.a.weight", {rows, 1024}, {}, DType::f16, false}};
  return plan;
}

void expect_full(const Container& container, const fs::path& directory, const OutputPlan& plan) {
  SCOPED_TRACE(std::string(container.name));
  try {
    auto writer = container.create(directory / "out", plan, false);
    writer->add("blk.0.a.weight", bytes_of(std::string(static_cast<size_t>(plan.tensors[0].shape[0]) * 2048, 'a')));
    writer->commit();
    ADD_FAILURE() << "the disk was not full";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::no_room) << e.what();
    EXPECT_THAT(e.what(), ::testing::HasSubstr("full"));
  }
  EXPECT_TRUE(fs::is_empty(directory));
}

TEST(FullDisk, LeavesNothing) {
  const SmallDisk disk;
  if (!disk.mounted()) GTEST_SKIP() << "a small tmpfs cannot be mounted here (needs root)";
  for (const Container& container : all_containers()) expect_full(container, disk.path(), plan_of(1024));
}

TEST(FullDisk, FilesThatMayNotGrowCountAsFull) {
  const TemporaryDirectory directory;
  const FileSizeLimit limit(1 << 20);
  for (const Container& container : all_containers()) expect_full(container, directory.path(), plan_of(1024));
}

// The weights fit, the report beside them does not.
TEST(FullDisk, WhileTheLastFilesAreWritten) {
  for (const Container& container : all_containers()) {
    const TemporaryDirectory directory;
    {
      const FileSizeLimit limit(1 << 19);
      auto writer = container.create(directory / "out", plan_of(16), false);
      writer->add("blk.0.a.weight", bytes_of(std::string(16 * 2048, 'a')));
      writer->seal();
      EXPECT_THROW(writer->add_file("report", std::string(1 << 20, 'r')), Error);
    }
    EXPECT_TRUE(fs::is_empty(directory.path()));
  }
}

TEST(Permission, IsAskedForBeforeAnythingIsDone) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  const TemporaryDirectory directory;
  fs::permissions(directory.path(), fs::perms::owner_read | fs::perms::owner_exec);
  for (const Container& container : all_containers())
    EXPECT_THAT(error_of([&] { container.create(directory / "out", plan_of(1), false); }),
                ::testing::HasSubstr("permission"));
  fs::permissions(directory.path(), fs::perms::owner_all);
}

TEST(Permission, TheFolderMustExist) {
  const TemporaryDirectory directory;
  for (const Container& container : all_containers())
    EXPECT_THAT(error_of([&] { container.create(directory / "none" / "out", plan_of(1), false); }),
                ::testing::HasSubstr("does not exist"));
}

}  // namespace
}  // namespace pare::test
