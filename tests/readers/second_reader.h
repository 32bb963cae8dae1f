// A second opinion on what Pare writes: a reader of GGUF, safetensors and GPTQ directories made only from the formats'
// descriptions, in the plainest C++ that does it. It shares no code with pare/ (only the standard library and
// nlohmann-json), keeps everything in memory, and is slow on purpose: every step should be obviously right.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pare::test {

struct SecondTensor {
  std::string name;
  std::vector<int64_t> shape;  // Hugging Face order: the last dimension is the fastest, also for GGUF
  std::string type;  // lower case: "f32", "bf16", "q4_k", "i32", …; "gptq-4" for an assembled weight of 4 bits
  std::vector<float> values;  // dequantized, row-major
  std::string bytes;          // as stored; empty for an assembled weight
};
using SecondTensors = std::map<std::string, SecondTensor>;

// All of these throw std::runtime_error when the file is not what the description says.

// Plain numbers and the blocks that block_value knows; other types are refused.
SecondTensors read_gguf(const std::filesystem::path& path);
// All key-value pairs as one object; arrays as arrays, integers exact.
nlohmann::json read_gguf_metadata(const std::filesystem::path& path);

SecondTensors read_safetensors(const std::filesystem::path& path);
nlohmann::json read_safetensors_metadata(const std::filesystem::path& path);  // the `__metadata__` object, or {}

// Every tensor of a Hugging Face directory: model.safetensors, or the shards that the index names.
SecondTensors read_directory(const std::filesystem::path& directory);
// The same, with each qweight, qzeros, scales and g_idx replaced by `<module>.weight` [out, in].
SecondTensors read_gptq_directory(const std::filesystem::path& directory);
// The quantized weights of a directory of any method that config.json names: GPTQ as above, AWQ, compressed-tensors,
// bitsandbytes, MLX.
SecondTensors read_hf_directory(const std::filesystem::path& directory);

}  // namespace pare::test
