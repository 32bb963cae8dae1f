// What a PEFT adapter's directory holds: adapter_config.json and adapter_model.safetensors or .bin.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pare/tensor/matrix.h"

namespace pare {

// What is done to the weight of one module.
struct LoraModule {
  Matrix a, b;             // [rank, inputs], [outputs, rank]; of an embedding [rank, rows], [width, rank]
  bool embedding = false;  // its rows are inputs: W + scale · (B A)ᵀ
  float scale = 0;         // alpha / rank, or alpha / √rank
  std::optional<std::vector<float>> magnitude;  // DoRA: the length of each output's weights after the sum
};

struct LoraAdapter {
  // Throws Error naming file and tensor for anything that is incomplete or of a kind that is not merged.
  static LoraAdapter read(const std::filesystem::path& directory);

  std::map<std::string, LoraModule> modules;  // by the base's name: "model.layers.0.self_attn.q_proj"
  std::map<std::string, Matrix> replaced;     // whole tensors: "lm_head.weight", "….q_proj.bias"
  std::string base;                           // base_model_name_or_path, "" when not said
};

// w is [outputs, inputs], of an embedding [rows, width]. Throws Error naming `tensor` when the shapes differ.
void merge(const LoraModule& module, Matrix& w, const std::string& tensor);

}  // namespace pare
