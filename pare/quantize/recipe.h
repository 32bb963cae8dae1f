// Recipes are rows of data: a name people use, and what it means on the three axes. Flags change a row's fields; the
// result is what the plan is made from.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pare/base/json.h"
#include "pare/grid/grid.h"
#include "pare/solver/solver.h"
#include "pare/tensor/dtype.h"

namespace pare {

// What a tensor becomes: a grid, or plain numbers.
using Target = std::variant<Grid, DType>;
Target parse_target(std::string_view name);  // "q4_k", "int4-g128", "int4-g128-asym", "int8-row", "f16"; throws Error
std::string name_of(const Target& target);

enum class Method : uint8_t { rtn, gptq, convert };  // convert: what the source has, moved onto the target
Method parse_method(std::string_view name);          // throws Error: names that will come later are said to
std::string_view name_of(Method method);

struct Recipe {
  std::string name;
  std::string container = "gguf";  // "gguf", "gptq", "gptq_v2"
  Method method = Method::rtn;
  Target linear = DType::f16;            // the decoder's linear layers
  std::optional<Target> embedding = {};  // unset: as stored (HF), f16 (GGUF)
  std::optional<Target> head = {};       // also of an embedding that serves as head
  std::string summary;
  std::string mixture = {};  // the rules of mixture.h by this name, where embedding and head are unset
};
std::span<const Recipe> all_recipes();
const Recipe& find_recipe(std::string_view name);  // case and '-'/'_' do not matter; throws Error listing the known
Recipe read_recipe_file(const std::filesystem::path& path);  // one's own row, as JSON with the fields above

struct CalibrationSettings {
  std::string data = "builtin";  // or a file
  int64_t samples = 1024;
  int64_t length = 0;  // tokens per window; 0: the model's context, at most 2048
};

struct Settings {
  Recipe recipe;
  std::vector<std::pair<std::string, Target>> overrides;  // regex over tensor names -> target; the last match wins
  std::vector<std::string> skip;                          // regex: keep these tensors as they are
  GptqOptions gptq;
  bool stored_order = false;    // desc_act asked for explicitly: refused where the container cannot hold it
  bool true_sequential = true;  // later sites of a block see its earlier ones quantized
  CalibrationSettings calibration;
  int64_t max_shard_bytes = int64_t{5} << 30;
  int64_t max_memory = 0;  // --max-ram; 0: what the machine has
  bool strict = false;     // refuse instead of falling back
  bool overwrite = false;
  uint64_t seed = 0;
  std::string command;  // for the report
};

}  // namespace pare
