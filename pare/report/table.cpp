#include "pare/report/table.h"

#include <utf8proc.h>

#include <algorithm>
#include <cassert>

namespace pare {
namespace {

// Calls visit(character's bytes, its width) for every code point; a byte that is no UTF-8 counts as one cell.
template <class Visit>
void for_each_character(std::string_view text, Visit&& visit) {
  while (!text.empty()) {
    utf8proc_int32_t code = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                         static_cast<utf8proc_ssize_t>(text.size()), &code);
    const size_t bytes = length > 0 ? static_cast<size_t>(length) : 1;
    if (!visit(text.substr(0, bytes), length > 0 ? utf8proc_charwidth(code) : 1)) return;
    text.remove_prefix(bytes);
  }
}

std::string padded(const std::string& text, int64_t width, Align align) {
  const auto missing = static_cast<size_t>(std::max<int64_t>(0, width - display_width(text)));
  return align == Align::right ? std::string(missing, ' ') + text : text + std::string(missing, ' ');
}

std::vector<int64_t> column_widths(const Table& table) {
  std::vector<int64_t> widths;
  for (const Column& column : table.columns) widths.push_back(display_width(column.title));
  for (const auto& row : table.rows) {
    assert(row.size() == widths.size());
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  }
  return widths;
}

std::vector<std::string> titles(const Table& table) {
  std::vector<std::string> out;
  for (const Column& column : table.columns) out.push_back(column.title);
  return out;
}

std::string text_line(const Table& table, const std::vector<std::string>& cells, const std::vector<int64_t>& widths) {
  std::string line;
  for (size_t c = 0; c < cells.size(); ++c) {
    if (c) line += "  ";
    line += padded(cells[c], widths[c], table.columns[c].align);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string markdown_line(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) {
    line += " ";
    for (const char c : cell) {
      if (c == '|') line += '\\';
      line += c == '\n' ? ' ' : c;
    }
    line += " |";
  }
  return line + "\n";
}

}  // namespace

int64_t display_width(std::string_view utf8) {
  int64_t width = 0;
  for_each_character(utf8, [&](std::string_view, int cells) {
    width += cells;
    return true;
  });
  return width;
}

std::string shortened(std::string_view utf8, int64_t width) {
  if (display_width(utf8) <= width) return std::string(utf8);
  std::string out;
  int64_t used = 1;  // the ellipsis
  for_each_character(utf8, [&](std::string_view character, int cells) {
    if (used + cells > width) return false;
    used += cells;
    out += character;
    return true;
  });
  return width < 1 ? "" : out + "…";
}

std::vector<std::string> wrapped(std::string_view utf8, int64_t width) {
  std::vector<std::string> lines(1);
  for (size_t at = 0; at <= utf8.size();) {
    const size_t end = std::min(utf8.find(' ', at), utf8.size());
    const std::string_view word = utf8.substr(at, end - at);
    if (!lines.back().empty() && display_width(lines.back()) + 1 + display_width(word) > width) lines.emplace_back();
    if (!lines.back().empty()) lines.back() += ' ';
    lines.back() += word;
    at = end + 1;
  }
  return lines;
}

std::string to_text(const Table& table) {
  const auto widths = column_widths(table);
  const bool titled = std::ranges::any_of(table.columns, [](const Column& c) { return !c.title.empty(); });
  std::string out = titled ? text_line(table, titles(table), widths) : "";
  for (const auto& row : table.rows) out += text_line(table, row, widths);
  return out;
}

std::string to_markdown(const Table& table) {
  std::string out = markdown_line(titles(table)) + "|";
  for (const Column& column : table.columns) out += column.align == Align::right ? "---:|" : "---|";
  out += "\n";
  for (const auto& row : table.rows) out += markdown_line(row);
  return out;
}

}  // namespace pare
