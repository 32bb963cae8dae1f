#include "pare/container/ct_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace pare {
namespace {

// What compressed-tensors calls a quantization scheme; null stands for what does not apply.
Json scheme(int bits, const char* type, const char* strategy, const Json& group = nullptr) {
  return {{"num_bits", bits},
          {"type", type},
          {"symmetric", true},
          {"strategy", strategy},
          {"group_size", group},
          {"block_structure", nullptr},
          {"dynamic", false},
          {"actorder", nullptr},
          {"observer", "memoryless_minmax"},
          {"observer_kwargs", Json::object()},
          {"scale_dtype", nullptr},
          {"zp_dtype", nullptr}};
}

Json scheme_of(const AffineSpec& spec, int64_t cols) {
  const bool channel = spec.group == 0 || spec.group == cols;
  Json out = spec.rows == 0 ? scheme(spec.bits, "int", "tensor")
             : channel      ? scheme(spec.bits, "int", "channel")
                            : scheme(spec.bits, "int", "group", spec.group);
  out["symmetric"] = spec.symmetric;
  if (!spec.symmetric) out["zp_dtype"] = "torch.int8";
  return out;
}

bool is_e4m3(const CodebookSpec& spec) { return spec.levels == CodebookSpec::Levels::e4m3; }

Json scheme_of(const CodebookSpec& spec, int64_t) {
  const int bits = is_e4m3(spec) ? 8 : 4;
  if (spec.scale == ScaleKind::e8m0 || spec.scale == ScaleKind::ue4m3) {
    Json out = scheme(bits, "float", spec.global ? "tensor_group" : "group", spec.group);
    out["scale_dtype"] = spec.global ? "torch.float8_e4m3fn" : "torch.uint8";
    return out;
  }
  if (spec.rows == 0 || spec.rows == 1) return scheme(bits, "float", spec.rows == 0 ? "tensor" : "channel");
  Json out = scheme(bits, "float", "block");
  out["block_structure"] = {spec.rows, spec.rows};
  return out;
}

Json scheme_of(const Grid& grid, int64_t cols) {
  if (const auto* affine = std::get_if<AffineSpec>(&grid)) return scheme_of(*affine, cols);
  return scheme_of(std::get<CodebookSpec>(grid), cols);
}

// Activations as bytes of the weights' kind: a scale per token, or per token and block.
Json inputs_for(const Json& weights) {
  const bool blocks = weights["strategy"] == "block";
  Json out = scheme(8, weights["type"] == "int" ? "int" : "float", blocks ? "group" : "token",
                    blocks ? weights["block_structure"][0] : Json());
  out["dynamic"] = true;
  out["observer"] = nullptr;
  return out;
}

const char* format_of(const Json& weights, CtActivations activations) {
  if (weights["type"] == "int") return activations == CtActivations::bytes ? "int-quantized" : "pack-quantized";
  if (weights["scale_dtype"].is_null()) return "float-quantized";
  if (weights["num_bits"] == 8) return "mxfp8-quantized";
  return weights["strategy"] == "tensor_group" ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized";
}

struct Group {
  Json weights;
  std::vector<std::string> modules;
};

// Layers by scheme, the most frequent first. A layer of one group is of the scheme of the others where that says the
// same about it.
std::vector<Group> groups_of(const OutputPlan& plan) {
  std::vector<Group> groups;
  for (const OutputTensor& t : plan.tensors) {
    if (!t.grid) continue;
    const Json weights = scheme_of(*t.grid, t.shape.back());
    auto at = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.weights == weights; });
    if (at == groups.end()) at = groups.insert(groups.end(), {weights, {}});
    at->modules.push_back(module_of_weight(t.name));
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.modules.size() > b.modules.size(); });
  return groups;
}

}  // namespace

std::vector<int> ct_widths(const HfFiles& files) {
  std::set<int> found;
  const auto groups = files.quantization.find("config_groups");
  if (groups != files.quantization.end() && groups->is_object())
    for (const auto& [name, group] : groups->items()) {
      const auto weights = group.is_object() ? group.find("weights") : group.end();
      if (!group.is_object() || weights == group.end() || !weights->is_object()) continue;
      if (text_of(*weights, "type") != "int") continue;
      const int64_t bits = integer_of(*weights, "num_bits", 0);
      if (bits < 2 || bits > 8)
        refuse_config(files, "integer codes of this width are not read", "2 to 8 bits", std::to_string(bits));
      found.insert(static_cast<int>(bits));
    }
  if (found.empty()) found = {4, 8};
  return {found.begin(), found.end()};
}

int64_t ct_block(const HfFiles& files) {
  const auto groups = files.quantization.find("config_groups");
  if (groups == files.quantization.end() || !groups->is_object()) return 128;
  for (const auto& [name, group] : groups->items()) {
    if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) continue;
    const auto block = group["weights"].find("block_structure");
    if (block == group["weights"].end() || block->is_null()) continue;
    if (!block->is_array() || block->size() != 2 || !(*block)[0].is_number_unsigned() || (*block)[0] != (*block)[1])
      refuse_config(files, "blocks of this shape are not read", "two equal sides", block->dump());
    return (*block)[0].get<int64_t>();
  }
  return 128;
}

Json ct_config_of(const OutputPlan& plan, CtActivations activations) {
  Json groups = Json::object();
  std::set<std::string> formats;
  for (const Group& g : groups_of(plan)) {
    // The most frequent scheme is that of all linear layers that nobody names.
    formats.insert(format_of(g.weights, activations));
    const Json inputs = activations == CtActivations::bytes ? inputs_for(g.weights) : Json();
    const Json targets = groups.empty() ? Json{"Linear"} : Json(g.modules);
    groups[fmt::format("group_{}", groups.size())] = {{"targets", targets},
                                                      {"weights", g.weights},
                                                      {"input_activations", inputs},
                                                      {"output_activations", nullptr},
                                                      {"format", format_of(g.weights, activations)}};
  }
  const std::string format = formats.size() == 1 ? *formats.begin() : "mixed-precision";
  std::vector<std::string> ignored = modules_kept_float(plan);
  const bool head = std::any_of(plan.tensors.begin(), plan.tensors.end(),
                                [](const OutputTensor& t) { return t.grid && t.name == "lm_head.weight"; });
  if (!head) ignored.emplace_back("lm_head");
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"config_groups", groups},
          {"ignore", ignored},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"version", "0.19.0"}};
}

}  // namespace pare
