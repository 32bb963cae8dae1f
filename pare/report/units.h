// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace pare {

std::string human_bytes(int64_t bytes);     // "812 B", "11.5 MB", "4.07 GB": powers of 1000, three digits
std::string human_count(int64_t count);     // "656 K", "1.10 B": three digits
std::string human_seconds(double seconds);  // "0.35 s", "12 s", "3:07", "1:02:33"

}  // namespace pare
