#include "pare/quantize/report_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "pare/base/sha256.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

Json tensor_json(const PlannedTensor& t) {
  Json out = {{"name", t.name},
              {"shape", t.shape},
              {"from", t.from},
              {"grid", name_of(t.target)},
              {"method", t.on_grid() ? std::string(name_of(t.method)) : "kept"},
              {"bytes", t.bytes}};
  if (!t.reason.empty()) out["reason"] = t.reason;
  return out;
}

Json findings_json(const Plan& plan) {
  Json out = Json::array();
  for (const Finding& f : plan.findings) {
    Json item = {{"severity", std::string(name_of(f.severity))}};
    if (!f.tensor.empty()) item["tensor"] = f.tensor;
    item["message"] = f.message;
    item["remedy"] = f.remedy;
    out.push_back(std::move(item));
  }
  return out;
}

Json runtimes_json(const Plan& plan) {
  Json out = Json::array();
  for (const RuntimeVerdict& v : plan.runs_in) {
    Json item = {{"runtime", v.runtime}, {"loads", v.loads}};
    if (!v.why.empty()) item["why"] = v.why;
    out.push_back(std::move(item));
  }
  return out;
}

Json settings_json(const Plan& plan) {
  const Settings& s = plan.settings;
  Json out = {{"recipe", s.recipe.name},
              {"container", s.recipe.container},
              {"method", std::string(name_of(s.recipe.method))},
              {"linear", name_of(s.recipe.linear)},
              {"seed", s.seed}};
  if (plan.calibrates())
    out["gptq"] = {{"damp_percent", s.gptq.damp},
                   {"desc_act", s.gptq.order == ColumnOrder::stored},
                   {"static_groups", s.gptq.static_groups},
                   {"true_sequential", s.true_sequential}};
  return out;
}

std::string sums_of_directory(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), directory));
  std::sort(files.begin(), files.end());
  std::string out;
  for (const fs::path& file : files) out += fmt::format("{}  {}\n", sha256_of_file(directory / file), file.string());
  return out;
}

// Of the weight files alone: unlike the report beside them, they are the same for every run.
std::string sha256_of_weights(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.size() == 1) return sha256_of_file(files.front());
  std::string sums;
  for (const fs::path& file : files) sums += sha256_of_file(file);
  return sha256_of(std::as_bytes(std::span(sums)));
}

// Runtimes and hubs read the front matter.
std::string model_card(const Plan& plan, const QuantizeReport& report) {
  const std::string base = fs::absolute(plan.checkpoint->path()).lexically_normal().filename().string();
  std::string out = fmt::format(
      "---\nbase_model: {0}\nlibrary_name: transformers\ntags:\n- {1}\n- pare\n---\n\n# {0}, quantized by Pare\n\n"
      "| | |\n| --- | --- |\n| recipe | {2} |\n| method | {3} |\n| linear layers | {4} |\n"
      "| bits per weight | {5:.3f} |\n| size | {6} bytes |\n",
      base, plan.container->name, plan.settings.recipe.name, name_of(plan.settings.recipe.method),
      name_of(plan.settings.recipe.linear), plan.bits_per_weight, report.output_bytes);
  if (plan.calibrates())
    out += fmt::format("| calibration | {} ({} windows of {} tokens) |\n", plan.calibration->source,
                       plan.calibration->cut.windows.size(), plan.calibration->cut.length);
  out += "\nErrors of every tensor are in `pare-report.json`; `sha256sum -c SHA256SUMS` checks the files.\n";
  return out;
}

Json calibration_json(const CalibrationPlan& c) {
  return {{"source", c.source},
          {"sha256", c.sha256},
          {"windows", c.cut.windows.size()},
          {"length", c.cut.length},
          {"tokens", c.cut.tokens()}};
}

}  // namespace

Json to_json(const Plan& plan) {
  Json tensors = Json::array();
  for (const PlannedTensor& t : plan.tensors) tensors.push_back(tensor_json(t));
  Json out = {{"architecture", plan.config.architecture},
              {"settings", settings_json(plan)},
              {"output_bytes", plan.output_bytes},
              {"bits_per_weight", plan.bits_per_weight},
              {"peak_memory_bytes", plan.peak_memory_bytes},
              {"disk_bytes", plan.disk_bytes},
              {"estimated_seconds", plan.estimated_seconds},
              {"tensors", std::move(tensors)},
              {"findings", findings_json(plan)},
              {"runs_in", runtimes_json(plan)}};
  if (plan.calibrates()) out["calibration"] = calibration_json(*plan.calibration);
  return out;
}

Json to_json(const Plan& plan, const QuantizeReport& report) {
  Json out = to_json(plan);
  out["estimated_peak_memory_bytes"] = plan.peak_memory_bytes;
  out["peak_memory_bytes"] = report.peak_memory_bytes;
  out["output_bytes"] = report.output_bytes;
  out["seconds"] = report.seconds;
  out["output_sha256"] = report.output_sha256;
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    const TensorReport& r = report.tensors[i];
    Json& t = out["tensors"][i];
    t["weight_error"] = r.weight_error;
    if (plan.tensors[i].method == Method::convert) t["changed_values"] = r.changed;
    if (r.output_error >= 0) t["output_error"] = r.output_error;
    if (r.damp > 0) t["damp"] = r.damp;
    if (r.dead_columns > 0) t["dead_columns"] = r.dead_columns;
    t["seconds"] = r.seconds;
  }
  return out;
}

void add_companions(const Plan& plan, const fs::path& output, Writer& writer, QuantizeReport& report) {
  const bool directory = fs::is_directory(writer.staged());
  report.output_sha256 = directory ? sha256_of_weights(writer.staged()) : sha256_of_file(writer.staged());
  Json json = to_json(plan, report);
  json["pare_version"] = PARE_VERSION;
  json["command"] = plan.settings.command;
  if (directory) {
    writer.add_file("README.md", model_card(plan, report));
  }
  writer.add_file("pare-report.json", json.dump(2) + "\n");
  const std::string sums = directory ? sums_of_directory(writer.staged())
                                     : fmt::format("{}  {}\n", report.output_sha256, output.filename().string());
  writer.add_file("SHA256SUMS", sums);
}

}  // namespace pare
