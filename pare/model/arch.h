// An architecture is a row of data: names of tensors in both spellings, and where they differ. Adding a Llama-like one
// adds a row.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "pare/model/config.h"

namespace pare {

enum class Role : uint8_t {
  token_embedding,
  position_embedding,
  project_in,
  project_out,
  attn_norm,
  q,
  k,
  v,
  qkv,
  o,
  q_norm,
  k_norm,
  ffn_norm,
  gate,
  up,
  down,
  final_norm,
  head,
};
std::string_view name_of(Role role);

// The input that a linear layer reads; linears of one site share one Hessian. In the order in which a block computes
// them.
enum class Site : uint8_t { attn_in, attn_out, ffn_in, ffn_out };
inline constexpr Site kSites[] = {Site::attn_in, Site::attn_out, Site::ffn_in, Site::ffn_out};
std::string_view name_of(Site site);

// How GGUF orders the rows of q and k of this architecture.
enum class RowOrder : uint8_t { as_is, interleaved_halves };

struct TensorName {
  Role role;
  std::string_view hf;    // "{}" stands for the layer; without ".weight"
  std::string_view gguf;  // empty: GGUF has no such tensor
  RowOrder gguf_rows = RowOrder::as_is;
  bool transposed = false;  // the HF file stores [in, out] (Conv1D)
};

struct Arch {
  std::string_view name;
  std::span<const std::string_view> hf_classes;
  std::string_view gguf;  // general.architecture; empty: GGUF knows no such model
  std::span<const TensorName> tensors;
  Config defaults;  // the flags; numbers come from the checkpoint
};
std::span<const Arch> all_archs();
const Arch& find_arch(std::string_view name);
const TensorName* find_tensor(const Arch& arch, Role role);

// GGUF metadata of this model (general.* and {arch}.*), as the reference converter writes it. `name` is general.name.
Metadata gguf_metadata(const Config& config, const Arch& arch, const Json& hf_config, const std::string& name);

}  // namespace pare
