// Everything that can be known before the first weight is read: what each tensor becomes, what falls back or is
// refused and what that costs, the exact size of the output, memory, disk and time, and who will be able to load it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pare/calibrate/windows.h"
#include "pare/container/container.h"
#include "pare/model/arch.h"
#include "pare/quantize/recipe.h"

namespace pare {

struct PlannedTensor {
  std::string name;            // in the output's spelling
  std::string source;          // in the checkpoint's spelling; empty: its values are `made`
  std::vector<int64_t> shape;  // in the output, outermost first
  std::string from;            // stored type: "bf16"
  Target target = DType::f32;
  Method method = Method::rtn;  // when the target is a grid
  std::optional<Role> role = {};
  int layer = -1;
  bool transposed = false;              // the source stores [in, out]
  float added = 0;                      // to every value (GGUF's norms)
  std::vector<int64_t> row_order = {};  // output row r is source row row_order[r]; empty: as is
  std::vector<float> made = {};
  std::string reason = {};  // why the target is not what the recipe says
  int64_t bytes = 0;        // in the output

  bool on_grid() const { return std::holds_alternative<Grid>(target); }
  int64_t size() const;
  Shape matrix_shape() const;
};

struct Finding {
  enum class Severity : uint8_t { note, warning, error } severity = Severity::note;
  std::string tensor = {};
  std::string message;
  std::string remedy = {};
};
std::string_view name_of(Finding::Severity severity);

// The text that will be run through the model.
struct CalibrationPlan {
  std::string source, sha256;
  TokenWindows cut;
};

// What changes a matrix after it was read, by its name in the checkpoint: [outputs, inputs], rows as the checkpoint has
// them.
using Edits = std::map<std::string, std::function<void(Matrix&)>>;

struct Plan {
  Settings settings;
  std::shared_ptr<const Checkpoint> checkpoint;
  Config config;
  const Arch* arch = nullptr;
  const Container* container = nullptr;
  std::vector<PlannedTensor> tensors;  // in file order
  Edits edits;
  OutputPlan output;
  std::vector<Finding> findings;
  std::vector<RuntimeVerdict> runs_in;
  int64_t output_bytes = 0;  // of the weight files, exact
  int64_t disk_bytes = 0;    // with everything beside them
  int64_t peak_memory_bytes = 0;
  double bits_per_weight = 0;
  double estimated_seconds = 0;
  std::shared_ptr<const CalibrationPlan> calibration;  // null: nothing needs one

  bool calibrates() const { return calibration != nullptr; }
};

// Throws Error for anything that cannot work, before any work is done.
Plan make_plan(std::shared_ptr<const Checkpoint> checkpoint, const Settings& settings);
// The steps of make_plan that other plans share. begin_plan: everything up to a layout in which each tensor is kept.
// keep_orientation: after its target is chosen. finish_plan: output, sizes and prices, from the tensors' targets.
Plan begin_plan(std::shared_ptr<const Checkpoint> checkpoint, const Settings& settings);
void keep_orientation(const Plan& plan, PlannedTensor& t);
void finish_plan(Plan& plan);
// Throws Error(no_room) when memory or the disk that holds `output` cannot take it.
void check_room(const Plan& plan, const std::filesystem::path& output);

}  // namespace pare
