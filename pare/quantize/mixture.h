// GGUF mixtures by their usual names: which type each tensor of a model gets, as llama-quantize decides it (formats.md
// §3.5). The rules are rows of data; checked against testdata/mixtures, tensor by tensor. Rules of its Falcon models
// and those that ask for an importance file are left out.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pare/grid/grid.h"

namespace pare {

struct Mixture {
  std::string_view name;  // "Q4_K_M"
  std::string_view base;  // the grid of whatever no rule names
  uint32_t file_type;     // general.file_type
  std::string_view summary;
};
std::span<const Mixture> all_mixtures();
const Mixture* find_mixture(std::string_view name);  // nullptr when there is none

struct MixtureModel {
  int64_t layers = 0;
  double heads_per_kv = 0;  // query heads per head of keys and values
  int64_t experts = 0;
  bool llama = false;  // with 80 layers: the 70B rules
};
struct MixtureTensor {
  std::string name;  // in GGUF's spelling
  int64_t cols = 0;
  bool stacked = false;  // of several matrices, such as experts
};
// The grid wanted of each tensor, in the order given, whether or not it divides the columns.
std::vector<Grid> mix(const Mixture& mixture, const MixtureModel& model, std::span<const MixtureTensor> tensors);

// The grid that takes the place of one that does not divide the columns, or nullopt: f16.
std::optional<Grid> grid_instead(const Grid& grid, int64_t cols);

}  // namespace pare
