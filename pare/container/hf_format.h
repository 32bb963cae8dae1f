// How quantized layers lie in Hugging Face directories: one row per format, one file per row. The directory itself
// (shards, index, config.json, aliases) is the same for all and is read by hf_checkpoint.cpp, written by
// hf_container.cpp; a format only turns one layer into tensors and back.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pare/container/checkpoint.h"
#include "pare/container/container.h"
#include "pare/container/safetensors.h"

namespace pare {

// ---- reading

// What a format may look at to recognise a checkpoint as its own.
struct HfFiles {
  const Json& config;           // config.json
  Json quantization;            // its quantization_config or the like; null when nothing says
  std::string where;            // the file that says so
  std::filesystem::path model;  // the directory
  std::span<const StoredTensor> tensors;
  std::function<const StoredTensor*(const std::string&)> find;
  std::function<void(std::string)> warn;  // what the reader puts up with

  std::string method() const;  // quant_method, "" when not named
};

// The tensors of one quantized layer, in an order of the format's own; null where an optional one is absent.
struct HfLayer {
  std::string module;  // "model.layers.0.mlp.up_proj"
  std::vector<const StoredTensor*> parts;
};

// One checkpoint, opened by the format it follows. All functions throw Error for faulty tensors, naming them.
class HfReader {
 public:
  virtual ~HfReader() = default;
  const std::map<std::string, HfLayer>& layers() const { return layers_; }  // by logical weight: "….up_proj.weight"
  virtual std::string convention() const = 0;                               // "gptq", "awq gemv"
  virtual Shape shape(const HfLayer& layer) const = 0;                      // from the tensors' shapes alone
  virtual Grid grid(const HfLayer& layer) const = 0;
  virtual Grid rough_grid(const HfLayer& layer) const { return grid(layer); }  // without touching data where possible
  virtual Quantized load(const HfLayer& layer) const = 0;

 protected:
  std::map<std::string, HfLayer> layers_;
};

// ---- writing

// One stored tensor of a layer.
struct HfPart {
  std::string name;
  std::vector<std::byte> bytes;
};

// What config.json must say and only the finished layers tell.
struct HfWritten {
  bool ordered = false;  // some layer stores an order of its columns
};

struct HfFormat {
  std::string_view name;  // also of the container: "gptq", "awq"
  // Null where another row reads what this one writes.
  bool (*matches)(const HfFiles& files) = nullptr;
  std::unique_ptr<HfReader> (*open)(const HfFiles& files) = nullptr;
  // Null where the format is only read. `place` as Container::place.
  Verdict (*accept)(const Grid& wanted, bool ordered) = nullptr;
  Verdict (*place)(const Grid& accepted, Shape shape, DType floats) = nullptr;
  // The tensors that hold a planned weight, and their bytes in the same order. Throws Error when they cannot.
  std::vector<SafetensorsSlot> (*slots)(const OutputTensor& t) = nullptr;
  std::vector<HfPart> (*encode)(const OutputTensor& t, const Quantized& q) = nullptr;
  // The quantization config, the keys of config.json that hold it, and a file that repeats it.
  Json (*config)(const OutputPlan& plan, const HfWritten& written) = nullptr;
  std::array<std::string_view, 2> config_keys = {"quantization_config", ""};
  std::string_view config_file = {};
  bool embeddings = false;  // this and the next as in Container
  std::vector<RuntimeVerdict> (*runtimes)(const OutputPlan& plan) = nullptr;
};

std::span<const HfFormat* const> all_hf_formats();  // in the order in which their readers are tried
std::vector<Container> hf_containers();             // of the formats that are written

// The rows, one file each. A row is a constant: it must not need code to run before main().
extern const HfFormat kGptqFormat, kGptqV2Format, kGptqPlanarFormat, kAwqFormat, kCtFormat, kCtW8A8Format, kBnbFormat,
    kFp8Format, kGptOssFormat, kMlxFormat, kFloatFormat;

// ---- what formats have in common

[[noreturn]] void refuse_tensor(const StoredTensor& t, std::string what, std::string expected, std::string got,
                                std::string remedy = "the checkpoint is damaged or was written by a faulty tool");
[[noreturn]] void refuse_config(const HfFiles& files, std::string what, std::string expected, std::string got,
                                std::string remedy = "give the original model");
// Throws Error unless the tensor has this type (any when empty) and rank, and is not empty.
void require_tensor(const StoredTensor& t, std::string_view type, size_t rank);
void require_shape(const StoredTensor& t, std::string_view type, const std::vector<int64_t>& shape);

// Layers whose tensors have these suffixes ("qweight" stands for "<module>.qweight"). The first makes the layer; those
// in front of `required` must be there too.
struct HfSuffixes {
  std::vector<std::string_view> all;
  size_t required = 0;
  std::function<bool(const StoredTensor&)> takes = {};  // asked about the first; empty: any
};
std::map<std::string, HfLayer> find_layers(const HfFiles& files, const HfSuffixes& suffixes);

std::string text_of(const Json& object, const char* key);  // "" where absent or no string
bool flag_of(const Json& object, const char* key, bool otherwise);
int64_t integer_of(const Json& object, const char* key, int64_t otherwise);

std::string module_of_weight(const std::string& name);  // without ".weight"
// Layers of decoder blocks have a number in their path: "model.layers.3.mlp.up_proj".
bool in_block(std::string_view name);
// The matrices of decoder blocks and others that stay floats, without ".weight": what configs list as exceptions.
std::vector<std::string> modules_kept_float(const OutputPlan& plan);

// The group size of all layers on an integer grid, -1 for whole rows. Throws Error when they differ: `format` has one.
int64_t one_group_size(const OutputPlan& plan, std::string_view format);

// Scales as f32. Throws Error on one that is not finite, naming its place.
void read_scales(const StoredTensor& t, std::span<float> out);
// f16, bf16 or f32; throws Error for any other type.
DType scale_type(const StoredTensor& t);
ScaleKind scale_kind(DType type);  // of those three
DType scale_dtype(ScaleKind kind);
// The columns sorted by their group, as Quantized::order; empty when they are already. `t` is the group of each column.
// Throws Error unless every group has as many columns as the others.
std::vector<int32_t> order_from_groups(const StoredTensor& t, int64_t groups, int64_t cols);
std::vector<std::byte> bytes_of(const void* data, size_t size);
template <class T>
std::vector<std::byte> bytes_of_values(std::span<const T> values) {
  return bytes_of(values.data(), values.size_bytes());
}
std::vector<std::byte> bytes_as(DType type, std::span<const float> values);

}  // namespace pare
