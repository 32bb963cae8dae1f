#include "pare/container/code_maps.h"

#include <fmt/format.h>

#include <algorithm>

#include "pare/base/threads.h"

namespace pare {
namespace {

using Levels = CodebookSpec::Levels;

// Level of each of a file's codes, or kNone.
int16_t level_of(Levels levels, int code) {
  constexpr std::array<int, 8> kFp4Rank = {0, 1, 6, 7, 4, 5, 2, 3};  // of 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4
  const auto signed_level = [](bool negative, int rank, int zeros) {
    return static_cast<int16_t>(negative ? zeros - 1 - rank : zeros + rank);
  };
  switch (levels) {
    case Levels::fp4:
      return code < 16 ? signed_level(code & 8, kFp4Rank[static_cast<size_t>(code & 7)], 8) : CodeMap::kNone;
    case Levels::e2m1:
      return code < 16 ? signed_level(code & 8, code & 7, 8) : CodeMap::kNone;
    case Levels::e4m3:
      return (code & 0x7F) == 0x7F ? CodeMap::kNone : signed_level(code & 0x80, code & 0x7F, 127);
    case Levels::int8:
      return code == 0x80 ? CodeMap::kNone : static_cast<int16_t>(static_cast<int8_t>(code) + 127);
    default:
      return static_cast<int16_t>(code < level_table(levels).count ? code : CodeMap::kNone);
  }
}

CodeMap make_map(Levels levels) {
  CodeMap map;
  for (int code = 0; code < 256; ++code) {
    const int16_t level = level_of(levels, code);
    map.level[static_cast<size_t>(code)] = level;
    if (level >= 0) map.code[static_cast<size_t>(level)] = static_cast<uint8_t>(code);
  }
  return map;
}

}  // namespace

const CodeMap& code_map(Levels levels) {
  static const std::array<CodeMap, 16> maps = [] {
    std::array<CodeMap, 16> all;
    for (const Levels l : {Levels::nf4, Levels::fp4, Levels::e2m1, Levels::e4m3, Levels::int8})
      all[static_cast<size_t>(l)] = make_map(l);
    return all;
  }();
  return maps[static_cast<size_t>(levels)];
}

void to_levels(const CodeMap& map, const StoredTensor& t, Plane<uint8_t>& codes) {
  parallel_for(codes.rows(), [&](int64_t r) {
    uint8_t* row = codes.row(r);
    for (int64_t c = 0; c < codes.cols(); ++c) {
      const int16_t level = map.level[row[c]];
      if (level == CodeMap::kNone)
        refuse_tensor(t, "a weight is not a number", "finite numbers",
                      fmt::format("code {} at [{}, {}]", row[c], r, c));
      row[c] = static_cast<uint8_t>(level);
    }
  });
}

void to_codes(const CodeMap& map, Plane<uint8_t>& levels) {
  parallel_for(levels.rows(), [&](int64_t r) {
    uint8_t* row = levels.row(r);
    std::transform(row, row + levels.cols(), row, [&](uint8_t level) { return map.code[level]; });
  });
}

}  // namespace pare
