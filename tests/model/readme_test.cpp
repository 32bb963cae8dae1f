// The README's table of families is made from the rows.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "pare/base/mapped_file.h"
#include "pare/model/arch.h"

namespace pare {
namespace {

std::string table_of_families() {
  std::string out = "| `model_type` | classes | GGUF |\n|---|---|---|\n";
  for (const Arch& arch : all_archs())
    out += fmt::format("| {} | {} | {} |\n", arch.name, fmt::join(arch.hf_classes, ", "),
                       arch.gguf.empty() ? "–" : arch.gguf);
  return out;
}

TEST(Readme, ListsEveryFamily) {
  const std::string readme = read_text_file(std::filesystem::path(PARE_SOURCE_DIR) / "README.md");
  EXPECT_NE(readme.find(table_of_families()), std::string::npos) << "README.md should have this table:\n"
                                                                 << table_of_families();
}

}  // namespace
}  // namespace pare
