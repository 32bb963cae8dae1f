#include "pare/container/gptq_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "pare/base/error.h"
#include "pare/container/hf_format.h"

namespace pare {
namespace {

// ---- reading

[[noreturn]] void refuse(const std::string& what, const std::string& where, const std::string& got,
                         const std::string& expected = "float weights, or GPTQ in the format gptq or gptq_v2") {
  throw Error({.what = what,
               .where = where + ", quantization_config",
               .expected = expected,
               .got = got,
               .remedy = "give the original model, or save this one as GPTQ"});
}

// GPTQModel subtracts one from whole words of zero points, so that it can store a zero of 0.
bool written_by_gptqmodel(const Json& config) {
  const auto meta = config.find("meta");
  if (meta == config.end() || !meta->is_object()) return false;
  const auto tools = meta->find("quantizer");
  if (tools == meta->end()) return false;
  const auto is_it = [](const Json& tool) {
    return tool.is_string() && tool.get<std::string>().starts_with("gptqmodel");
  };
  return tools->is_array() ? std::any_of(tools->begin(), tools->end(), is_it) : is_it(*tools);
}

// ---- writing

// A regular expression that matches exactly this name.
std::string pattern_of(std::string_view module) {
  std::string out;
  for (const char c : module) {
    if (std::string_view(".^$|()[]{}*+?\\").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out + "$";
}

struct Rule {
  int bits = 4;
  int64_t group = 128;
  bool symmetric = true;
  auto operator<=>(const Rule&) const = default;
};

Rule rule_of(const OutputTensor& t) {
  const auto& spec = std::get<AffineSpec>(*t.grid);
  return {spec.bits, spec.group == 0 ? -1 : spec.group, spec.symmetric};
}

Rule most_frequent(const OutputPlan& plan) {
  std::map<Rule, int> counts;
  for (const OutputTensor& t : plan.tensors)
    if (t.grid) ++counts[rule_of(t)];
  Rule best;
  int most = 0;
  for (const auto& [rule, n] : counts)
    if (n > most) best = rule, most = n;
  return best;
}

// Layers that the rule does not describe. First match wins in the readers; names are exact, so order does not matter.
Json dynamic_rules(const OutputPlan& plan, const Rule& rule) {
  Json out = Json::object();
  for (const OutputTensor& t : plan.tensors) {
    if (!t.name.ends_with(".weight")) continue;
    const std::string pattern = pattern_of(module_of_weight(t.name));
    if (!t.grid) {
      if (t.shape.size() == 2 && in_block(t.name)) out["-:" + pattern] = Json::object();
    } else if (const Rule own = rule_of(t); own != rule) {
      out["+:" + pattern] = {{"bits", own.bits}, {"group_size", own.group}, {"sym", own.symmetric}};
    }
  }
  return out;
}

}  // namespace

GptqConvention read_gptq_config(const Json& config, const std::string& where) {
  GptqConvention out;
  if (config.is_null()) return out;
  if (!config.is_object()) refuse("the quantization config is no JSON object", where, config.type_name(), "an object");
  std::string format = text_of(config, "checkpoint_format");
  if (format.empty()) format = text_of(config, "format");
  if (flag_of(config, "is_marlin_format", false)) format = "marlin";
  if (!format.empty() && format != "gptq" && format != "gptq_v2" && format != "gptq_p")
    refuse("this variant of GPTQ files is not read", where, fmt::format("checkpoint_format \"{}\"", format));
  const std::string words = text_of(config, "pack_dtype");
  if (!words.empty() && words != "int32")
    refuse("GPTQ files of such words are not read", where, fmt::format("pack_dtype \"{}\"", words), "int32");
  out.zeros = format == "gptq_v2" ? GptqZeros::plain : format == "gptq_p" ? GptqZeros::planar : GptqZeros::minus_one;
  out.symmetric = flag_of(config, "sym", true);
  out.whole_words = written_by_gptqmodel(config);
  return out;
}

Json gptq_config(const OutputPlan& plan, GptqZeros zeros, bool ordered) {
  const Rule rule = most_frequent(plan);
  const bool head = std::any_of(plan.tensors.begin(), plan.tensors.end(),
                                [](const OutputTensor& t) { return t.grid && !in_block(t.name); });
  const char* format = zeros == GptqZeros::plain ? "gptq_v2" : zeros == GptqZeros::planar ? "gptq_p" : "gptq";
  Json out = {{"bits", rule.bits}, {"group_size", rule.group}, {"desc_act", ordered}, {"sym", rule.symmetric},
              {"lm_head", head},   {"quant_method", "gptq"},   {"method", "gptq"},    {"checkpoint_format", format},
              {"format", format},  {"pack_dtype", "int32"}};
  const Json dynamic = dynamic_rules(plan, rule);
  if (!dynamic.empty()) out["dynamic"] = dynamic;
  if (plan.quantization.is_object())
    for (const auto& [key, value] : plan.quantization.items())
      if (!out.contains(key)) out[key] = value;
  return out;
}

}  // namespace pare
