// Reference data beside the checkout (../shared): tests read it in place and skip, saying so, where it is missing.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace pare::test {

inline std::filesystem::path shared(const std::string& name) {
  const char* root = std::getenv("PARE_SHARED");
  return (root ? std::filesystem::path(root) : std::filesystem::path(PARE_SOURCE_DIR) / ".." / "shared") / name;
}
inline std::filesystem::path demo_model() { return std::filesystem::path(PARE_SOURCE_DIR) / "demo_model"; }

// A directory of this test's own, removed when it ends.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "pare-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace pare::test

#define PARE_NEEDS_SHARED(name)                             \
  if (!std::filesystem::exists(::pare::test::shared(name))) \
  GTEST_SKIP() << "reference data not found: " << ::pare::test::shared(name)
