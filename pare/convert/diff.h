// Two checkpoints of any formats, compared tensor by tensor.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pare/base/progress.h"
#include "pare/container/checkpoint.h"

namespace pare {

// What one side has for a tensor.
struct DiffSide {
  std::string name;  // in its own spelling
  std::string type;  // "bf16", "int4-g128-sym", "q4_k"
  Shape shape;       // outputs x inputs
  double bits = 0;   // per weight, as stored
};
struct DiffTensor {
  DiffSide a, b;
  bool comparable = true;     // false: the shapes differ, and nothing below is known
  double relative_error = 0;  // |A - B|² / |A|²; infinite when only A is zero
  double cosine = 1;          // of the angle between both; 1 when both are zero
  double largest = 0;         // |a - b| of one value
  int64_t different = 0;      // values that are not equal
};
struct Diff {
  std::vector<DiffTensor> tensors;  // in the order of A
  std::vector<DiffSide> only_in_a, only_in_b;
  double relative_error = 0;       // over all comparable tensors
  std::vector<std::string> notes;  // what could not be matched by meaning
  bool equal() const;              // every value of every tensor, on both sides
};

// Streams: memory is two tensors in f32. Throws Error when the two have no tensor in common.
Diff diff(std::shared_ptr<const Checkpoint> a, std::shared_ptr<const Checkpoint> b, const Observer& observer = {});

}  // namespace pare
