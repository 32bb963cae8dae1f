// What the tensors of a checkpoint are, independent of the spelling and arrangement of its container: the same weight
// of the same model has the same key and the same values whether it lies in an HF directory or in a GGUF file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pare/model/arch.h"

namespace pare {

class Arrangement {
 public:
  // A checkpoint whose architecture Pare does not know keeps its own names as keys.
  explicit Arrangement(std::shared_ptr<const Checkpoint> checkpoint);
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const Config* config() const { return config_ ? &*config_ : nullptr; }  // null: unknown architecture
  const std::optional<std::string>& unknown() const { return unknown_; }  // why there is none

  // "blk.3.q.weight", "token_embedding.weight"; the tensor's own name where the architecture has no row for it.
  std::string key(const std::string& name) const;
  // Rows x columns of values(): outputs x inputs for a matrix, higher ranks folded into rows.
  Shape shape(const std::string& name) const;
  // In the order of rows and the orientation that HF linears have. Throws Error on tensors that hold no real numbers.
  Matrix values(const std::string& name) const;

 private:
  struct Turn {
    bool transposed = false;
    std::vector<int64_t> rows;  // empty: as stored
  };
  std::optional<TensorNames::Place> place(const std::string& name) const;
  Turn turn(const std::string& name) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::optional<Config> config_;
  std::optional<std::string> unknown_;
  const Arch* arch_ = nullptr;
};

}  // namespace pare
