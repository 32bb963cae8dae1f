#pragma once

#include <string_view>
#include <vector>

namespace pare {

// One view per domain; passages are separated by lines holding only "---".
std::vector<std::string_view> builtin_texts();

}  // namespace pare
