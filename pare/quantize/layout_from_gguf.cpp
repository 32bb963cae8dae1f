#include "pare/quantize/layout_from_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "pare/base/error.h"
#include "pare/model/gguf_export.h"
#include "pare/model/hf_config.h"
#include "pare/tokenizer/hf_files.h"

namespace pare {
namespace {

std::string_view hf_name_of(DType type) {
  switch (type) {
    case DType::bf16:
      return "bfloat16";
    case DType::f32:
      return "float32";
    default:
      return "float16";
  }
}

// The type of most plain matrices of the output; f16 where there are none.
DType usual_floats(const std::vector<PlannedTensor>& tensors) {
  std::map<DType, int64_t> weights;
  for (const PlannedTensor& t : tensors)
    if (const DType* type = std::get_if<DType>(&t.target); type && t.shape.size() == 2) weights[*type] += t.size();
  DType best = DType::f16;
  int64_t most = 0;
  for (const auto& [type, count] : weights)
    if (count > most) best = type, most = count;
  return best;
}

}  // namespace

std::vector<PlannedTensor> lay_out_from_gguf(const Plan& plan) {
  const Checkpoint& checkpoint = *plan.checkpoint;
  const TensorNames stored(*plan.arch, checkpoint), wanted(*plan.arch, Format::huggingface);
  std::vector<PlannedTensor> out;
  for (const std::string& name : checkpoint.weights()) {
    if (name == "rope_freqs.weight") continue;  // config.json says it as rope_scaling
    const auto place = stored.place(name);
    if (!place)
      throw Error({.what = fmt::format("a tensor that {} models do not have", plan.arch->name),
                   .where = fmt::format("{}: {}", checkpoint.path().string(), name),
                   .remedy = "the file is of another architecture, or holds more than a language model"});
    const TensorName& tensor = *place->tensor;
    const auto grid = checkpoint.grid_of_weight(name);
    PlannedTensor t{.name = place->weight ? wanted.weight(tensor, place->layer, std::max(0, place->part))
                                          : wanted.bias(tensor, place->layer, std::max(0, place->part)),
                    .source = name,
                    .shape = checkpoint.find(name)->shape,
                    .from = grid ? name_of(*grid) : checkpoint.find(name)->type};
    t.target = grid ? DType::f16 : dtype_from_name(t.from).value_or(DType::f32);
    t.role = tensor.role;
    t.layer = place->layer;
    t.row_order = gguf_row_permutation(plan.config, tensor, t.shape.empty() ? 0 : t.shape.front(), true);
    out.push_back(std::move(t));
  }
  return out;
}

void describe_from_gguf(Plan& plan) {
  const std::string where = plan.checkpoint->path().string();
  plan.output.config = hf_config(plan.config, *plan.arch, std::string(hf_name_of(usual_floats(plan.tensors))));
  plan.output.made = hf_tokenizer_files(plan.checkpoint->metadata(), where);
  plan.output.max_shard_bytes = plan.settings.max_shard_bytes;
}

}  // namespace pare
