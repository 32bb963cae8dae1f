// Tables of plain text: the same rows as aligned columns for a terminal or as Markdown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pare {

enum class Align : uint8_t { left, right };

struct Column {
  std::string title;
  Align align = Align::left;
};

struct Table {
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;  // UTF-8; each as long as `columns`
};

// Two spaces between columns, none at the end of a line, every line ended by '\n'. A table whose titles are all empty
// has no title line.
std::string to_text(const Table& table);
std::string to_markdown(const Table& table);

// Cells that a terminal gives to this text: wide characters take two, combining marks none.
int64_t display_width(std::string_view utf8);
// The text cut to a width, with "…" where something is missing.
std::string shortened(std::string_view utf8, int64_t width);
// Lines of at most `width` cells, broken at spaces.
std::vector<std::string> wrapped(std::string_view utf8, int64_t width);

}  // namespace pare
