// JSON from untrusted files: size, depth and duplicate keys are checked before anybody uses a value.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace pare {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t bytes = size_t{256} << 20;
  int depth = 64;
  bool unique_keys = false;  // refuse an object that names a key twice
};

// Throws Error naming `where`, with the byte offset of the fault.
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

}  // namespace pare
