#include "pare/report/units.h"

#include <fmt/format.h>

#include <cmath>

namespace pare {
namespace {

std::string three_digits(double value, const char* const* units, int count) {
  int unit = 0;
  while (value >= 999.5 && unit + 1 < count) {
    value /= 1000;
    ++unit;
  }
  const int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}{}", value, decimals, units[unit]);
}

}  // namespace

std::string human_bytes(int64_t bytes) {
  constexpr const char* kUnits[] = {" B", " kB", " MB", " GB", " TB"};
  return three_digits(static_cast<double>(bytes), kUnits, 5);
}

std::string human_count(int64_t count) {
  constexpr const char* kUnits[] = {"", " K", " M", " B", " T"};
  return three_digits(static_cast<double>(count), kUnits, 5);
}

std::string human_seconds(double seconds) {
  if (!(seconds >= 0)) return "?";
  if (seconds < 9.95) return fmt::format("{:.2g} s", seconds);
  if (seconds < 59.5) return fmt::format("{:.0f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  const int64_t hours = whole / 3600, minutes = whole / 60 % 60;
  return hours ? fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60)
               : fmt::format("{}:{:02}", minutes, whole % 60);
}

}  // namespace pare
