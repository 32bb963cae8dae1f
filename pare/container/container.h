// Where quantized matrices are written. A container says, while planning, which grids it can hold; it never asks how
// the codes were chosen.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pare/base/json.h"
#include "pare/base/metadata.h"
#include "pare/grid/quantized.h"
#include "pare/tensor/dtype.h"

namespace pare {

// The grid as this container can hold it, perhaps narrowed, or why it cannot.
struct Verdict {
  std::optional<Grid> grid;
  std::string why;  // when there is no grid
  std::string remedy;
};

// One tensor of the output as planned: on a grid, or kept as plain numbers.
struct OutputTensor {
  std::string name;            // logical, in the container's spelling, with ".weight" or ".bias"
  std::vector<int64_t> shape;  // outermost first
  std::optional<Grid> grid;    // nullopt: floats of `dtype`
  DType dtype = DType::f32;    // on a grid: what readers expand it to
  bool ordered = false;        // columns may carry an order
};

// Everything a writer must know before the first byte: hence the exact size.
struct OutputPlan {
  std::vector<OutputTensor> tensors;  // in file order
  Metadata metadata;                  // GGUF
  Json config;                        // HF: config.json without quantization_config
  Json quantization;                  // HF: what the container cannot know (damp_percent, meta, …); its own keys win
  std::map<std::string, std::string> aliases;  // HF: Checkpoint::aliases, recorded again where the stored name is
  std::vector<std::filesystem::path> carried;  // HF: files copied along unchanged (tokenizer, generation config, …)
  std::vector<std::pair<std::string, std::string>> made = {};  // HF: small files by name, and their text
  int64_t max_shard_bytes = int64_t{5} << 30;
};

// Whether a program will load what is planned.
struct RuntimeVerdict {
  std::string runtime;
  bool loads = false;
  std::string why = {};
};

class Writer {
 public:
  virtual ~Writer() = default;
  // Each planned tensor once, in any order, from any thread. Throws Error on a full disk; std::logic_error when the
  // tensor is not as planned.
  virtual void add(const std::string& name, const Quantized& q) = 0;
  virtual void add(const std::string& name, std::span<const std::byte> bytes) = 0;  // dtype and shape as planned
  // The files as they will be, under temporary names until commit(): to verify and to hash. Complete after seal().
  // HF: a directory. GGUF: a file.
  virtual std::filesystem::path staged() const = 0;
  // Adds a small file (report, hashes, model card) that appears together with the weights. HF: inside the directory.
  // GGUF: beside the file as <stem>.<name>, in place before the model, so that the model's appearance means complete.
  virtual void add_file(const std::string& name, const std::string& text) = 0;
  virtual void seal() = 0;    // all tensors are there: data complete and synced, readable at staged()
  virtual void commit() = 0;  // appears under its name
};

struct Container {
  std::string_view name;  // "gptq", "gptq_v2", "awq", "safetensors" (floats only), "gguf"
  Verdict (*accept)(const Grid& wanted, bool ordered);
  int64_t (*output_bytes)(const OutputPlan& plan);  // of the weight files; exact
  std::unique_ptr<Writer> (*create)(const std::filesystem::path& path, const OutputPlan& plan, bool overwrite);
  // An accepted grid for one matrix of a model whose floats have this type, perhaps narrowed again (scales in that
  // type), or why that matrix must stay in floats. Null: as accepted.
  Verdict (*place)(const Grid& accepted, Shape shape, DType floats) = nullptr;
  bool embeddings = false;                                                    // its readers take embeddings on a grid
  std::vector<RuntimeVerdict> (*runtimes)(const OutputPlan& plan) = nullptr;  // null: nothing is known
};
std::span<const Container> all_containers();
const Container& find_container(std::string_view name);  // throws Error listing the known

}  // namespace pare
