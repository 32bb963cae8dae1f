// A model on disk, whatever its container: an HF directory of safetensors (float or GPTQ) or a GGUF file. The reader is
// chosen by content, never by file name.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
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
  std::span<const std::byte> bytes;  // may be unaligned
  int64_t size() const;
  // As f32, a vector being one row. Throws Error when the rank is above 2 or the type holds no real numbers.
  Matrix to_matrix() const;
};
using Weight = std::variant<FloatTensor, Quantized>;

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  // An HF directory, a .safetensors file beside its config.json, a GGUF file, or a directory with exactly one GGUF
  // file. Throws Error for anything else, listing what it looked for.
  static std::shared_ptr<const Checkpoint> open(const std::filesystem::path& path);

  virtual Format format() const = 0;
  const std::filesystem::path& path() const { return path_; }            // HF: the directory; GGUF: the file
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // as stored, in file order
  const StoredTensor* find(const std::string& name) const;
  int64_t file_bytes() const { return file_bytes_; }                      // of the weight files
  const std::vector<std::string>& warnings() const { return warnings_; }  // what the reader put up with

  // HF: names that some tools dropped because their tensor is stored under another name -> that name. load() and has()
  // follow them; tensors() does not list them.
  const std::map<std::string, std::string>& aliases() const { return aliases_; }

  const Json& config() const { return config_; }          // config.json; null for GGUF
  const Metadata& metadata() const { return metadata_; }  // GGUF keys; empty for HF

  // Logical weights: what the model calls "….q_proj.weight" even where the file holds ….q_proj.qweight, .scales, ….
  // `name` is the container's own spelling (HF names or GGUF names), with the suffix ".weight" or ".bias". A Quantized
  // is always outputs x inputs, even where the float checkpoint of the same model stores the transpose (GPT-2).
  virtual bool has(const std::string& name) const = 0;
  virtual std::optional<Shape> shape_of(const std::string& name) const = 0;       // vectors: 1 x n
  virtual Weight load(const std::string& name) const = 0;                         // throws Error when absent or faulty
  virtual std::optional<Grid> grid_of_weight(const std::string& name) const = 0;  // nullopt: floats
  virtual std::string quantization() const = 0;  // "gptq int4-g128-sym", "q4_k", "none"
  // All of them in file order, a quantized matrix where its first part stands. Aliases are not listed.
  virtual std::vector<std::string> weights() const;
  int64_t bytes_of(const std::string& name) const;  // in the file, all parts together
  void forget(const std::string& name) const;       // gives the mapped pages of the tensor's parts back

 protected:
  void add_tensor(StoredTensor tensor);                                                  // name not seen before
  virtual std::vector<const StoredTensor*> parts_of(const std::string& name) const = 0;  // of a logical weight

  std::filesystem::path path_;
  std::vector<StoredTensor> tensors_;
  int64_t file_bytes_ = 0;
  std::vector<std::string> warnings_;
  std::map<std::string, std::string> aliases_;
  Json config_;
  Metadata metadata_;

 private:
  std::unordered_map<std::string, size_t> index_;
};

// As rows and columns: vectors are one row, higher ranks fold all but the last dimension into rows.
Shape matrix_shape(const std::vector<int64_t>& shape);

// The readers behind Checkpoint::open. `weights` is the index or the one safetensors file in `directory`.
std::shared_ptr<const Checkpoint> open_huggingface(const std::filesystem::path& directory,
                                                   const std::filesystem::path& weights);
std::shared_ptr<const Checkpoint> open_gguf(const std::filesystem::path& file);

}  // namespace pare
