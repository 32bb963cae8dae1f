// model.safetensors.index.json: which tensor stands in which of several files.
//   {"metadata":{"total_size":N},"weight_map":{"tensor":"model-00001-of-00002.safetensors",…}}
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>

namespace pare {

struct ShardIndex {
  std::map<std::string, std::string> weight_map;  // tensor -> file name
  std::set<std::string> files() const;
};

// Throws Error unless every file is named by a plain name in the index's own folder.
ShardIndex read_shard_index(const std::filesystem::path& path);
std::string shard_index_json(const ShardIndex& index, uint64_t total_size);

}  // namespace pare
