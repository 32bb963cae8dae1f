#include "pare/container/ct_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace pare {
namespace {

// What compressed-tensors calls a quantization scheme; null stands for what does not apply.
Json scheme(int bits, bool symmetric, const char* strategy, const Json& group) {
  return {{"num_bits", bits},
          {"type", "int"},
          {"symmetric", symmetric},
          {"strategy", strategy},
          {"group_size", group},
          {"block_structure", nullptr},
          {"dynamic", false},
          {"actorder", nullptr},
          {"observer", "memoryless_minmax"},
          {"observer_kwargs", Json::object()},
          {"scale_dtype", nullptr},
          {"zp_dtype", symmetric ? Json() : Json("torch.int8")}};
}

Json scheme_of(const AffineSpec& spec, int64_t cols) {
  if (spec.rows == 0) return scheme(spec.bits, spec.symmetric, "tensor", nullptr);
  if (spec.group == 0 || spec.group == cols) return scheme(spec.bits, spec.symmetric, "channel", nullptr);
  return scheme(spec.bits, spec.symmetric, "group", spec.group);
}

Json per_token() {
  Json out = scheme(8, true, "token", nullptr);
  out["dynamic"] = true;
  out["observer"] = nullptr;
  return out;
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
    const Json weights = scheme_of(std::get<AffineSpec>(*t.grid), t.shape.back());
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

Json ct_config_of(const OutputPlan& plan, CtActivations activations) {
  const char* format = activations == CtActivations::int8 ? "int-quantized" : "pack-quantized";
  const Json inputs = activations == CtActivations::int8 ? per_token() : Json();
  Json groups = Json::object();
  for (const Group& g : groups_of(plan)) {
    // The most frequent scheme is that of all linear layers that nobody names.
    const Json targets = groups.empty() ? Json{"Linear"} : Json(g.modules);
    groups[fmt::format("group_{}", groups.size())] = {{"targets", targets},
                                                      {"weights", g.weights},
                                                      {"input_activations", inputs},
                                                      {"output_activations", nullptr},
                                                      {"format", format}};
  }
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
