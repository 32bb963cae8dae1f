// A model on disk, whatever its container: an HF directory of safetensors (float or GPTQ) or a GGUF file. The reader is
// chosen by content, never by file name.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "pare/base/json.h"
#include "pare/base/metadata.h"
#include "pare/grid/quantized.h"
#include "pare/tensor/dtype.h"

namespace pare {

enum class Format : uint8_t { huggingface, gguf };

struct StoredTensor {
  std::string name;
  std::string type;  // "bf16", "q4_k"
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  std::filesystem::path file;
};

// A tensor of plain numbers, mapped.
struct FloatTensor {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  int64_t size() const;
  // As f32, a vector being one row. Throws Error when the rank is above 2.
  Matrix to_matrix() const;
};
using Weight = std::variant<FloatTensor, Quantized>;

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  // Throws Error for anything that is neither, listing what it looked for.
  static std::shared_ptr<const Checkpoint> open(const std::filesystem::path& path);

  virtual Format format() const = 0;
  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // as stored, in file order
  const StoredTensor* find(const std::string& name) const;
  int64_t file_bytes() const;  // of the weight files

  const Json& config() const { return config_; }          // config.json; null for GGUF
  const Metadata& metadata() const { return metadata_; }  // GGUF keys; empty for HF

  // Logical weights: what the model calls "….q_proj.weight" even where the file holds ….q_proj.qweight, .scales, ….
  // `name` is the container's own spelling (HF names or GGUF names), with the suffix ".weight" or ".bias".
  virtual bool has(const std::string& name) const = 0;
  virtual std::optional<Shape> shape_of(const std::string& name) const = 0;       // vectors: 1 x n
  virtual Weight load(const std::string& name) const = 0;                         // throws Error when absent or faulty
  virtual std::optional<Grid> grid_of_weight(const std::string& name) const = 0;  // nullopt: floats
  virtual std::string quantization() const = 0;  // "gptq int4-g128-sym", "q4_k", "none"
  void forget(const std::string& name) const;    // gives the mapped pages of the tensor's parts back

 protected:
  std::filesystem::path path_;
  std::vector<StoredTensor> tensors_;
  Json config_;
  Metadata metadata_;
};

}  // namespace pare
