// pare convert: any container to any other.
#include <fmt/format.h>

#include <algorithm>

#include "pare/base/error.h"
#include "pare/cli/commands.h"
#include "pare/quantize/conversion.h"
#include "pare/quantize/pipeline.h"
#include "pare/quantize/report_json.h"
#include "pare/report/table.h"
#include "pare/report/units.h"

namespace pare::cli {
namespace {

struct ConvertOptions {
  std::string model, output;
  std::optional<std::string> to, dtype, grid;
  bool dequantize = false, strict = false, force = false, dry_run = false;
  ByteCount max_shard_size{int64_t{5} << 30};
};

Options describe(ConvertOptions& o) {
  Options options(
      {.command = "convert",
       .summary = "Turns a checkpoint into another format; without loss wherever the other can hold its values.",
       .example = "pare convert demo-gptq demo.gguf --to gguf"});
  options.add({.names = "IN", .target = &o.model, .help = "HF directory or .gguf file", .required = true})
      .add({.names = "OUT", .target = &o.output, .help = "new file (.gguf) or directory", .required = true})
      .add({.names = "--to",
            .value = "F",
            .target = &o.to,
            .help = "gguf, gptq, awq, …; safetensors: floats (default: by OUT)"})
      .add({.names = "--grid",
            .value = "GRID",
            .target = &o.grid,
            .help = "for the quantized matrices: q8_0, int4-g32, …"})
      .add({.names = "--dtype", .value = "T", .target = &o.dtype, .help = "of floats: f32, f16 or bf16 (as stored)"})
      .add({.names = "--dequantize", .target = &o.dequantize, .help = "floats only"})
      .add({.names = "--max-shard-size", .value = "SIZE", .target = &o.max_shard_size, .help = "of safetensors (5G)"})
      .add({.names = "--strict", .target = &o.strict, .help = "refuse to change values"})
      .add({.names = "--force", .target = &o.force, .help = "replace an existing output"})
      .add({.names = "--dry-run", .target = &o.dry_run, .help = "say what would be done"});
  return options;
}

std::string container_of(const ConvertOptions& o, const Checkpoint& source) {
  if (o.to) return std::string(find_container(*o.to).name);
  if (std::string_view(o.output).ends_with(".gguf")) return "gguf";
  if (o.dequantize || source.quantization() == "none") return "safetensors";
  throw Error({.what = "nothing says what to make",
               .where = "pare convert",
               .remedy = "pass --to gguf, gptq, awq, … or --dequantize",
               .code = ExitCode::usage});
}

ConversionSettings to_settings(const ConvertOptions& o, const Checkpoint& source, const Session& session) {
  ConversionSettings s;
  s.container = container_of(o, source);
  if (o.grid) {
    const pare::Target target = parse_target(*o.grid);
    if (const Grid* grid = std::get_if<Grid>(&target))
      s.grid = *grid;
    else
      s.dequantize = true, s.dtype = std::get<DType>(target);
  }
  if (o.dtype) {
    const pare::Target target = parse_target(*o.dtype);
    if (!std::holds_alternative<DType>(target))
      throw Error({.what = "not a type of floats",
                   .where = "--dtype",
                   .expected = "f32, f16 or bf16",
                   .got = *o.dtype,
                   .remedy = "for a grid pass --grid",
                   .code = ExitCode::usage});
    s.dtype = std::get<DType>(target);
  }
  s.dequantize = s.dequantize || o.dequantize || s.container == "safetensors";
  s.strict = o.strict;
  s.max_shard_bytes = o.max_shard_size.value;
  s.overwrite = o.force;
  for (const std::string& word : session.command_line) s.command += (s.command.empty() ? "" : " ") + word;
  return s;
}

std::string plan_text(const Plan& plan) {
  Table table{.columns = {{"tensor"}, {"from"}, {"becomes"}, {"bytes", Align::right}}, .rows = {}};
  for (const PlannedTensor& t : plan.tensors)
    table.rows.push_back({t.name, t.from, name_of(t.target), std::to_string(t.bytes)});
  std::string out = to_text(table) + "\n";
  for (const Finding& f : plan.findings) out += fmt::format("{}: {}\n", f.tensor, f.message);
  return out +
         fmt::format("size {} · memory {}\n", human_bytes(plan.output_bytes), human_bytes(plan.peak_memory_bytes));
}

std::string done_text(const Plan& plan, const QuantizeReport& report, const std::string& output) {
  Table table{
      .columns = {{"tensor"}, {"from"}, {"became"}, {"values changed", Align::right}, {"added error", Align::right}},
      .rows = {}};
  for (size_t i = 0; i < report.tensors.size(); ++i)
    if (const TensorReport& r = report.tensors[i]; r.changed > 0)
      table.rows.push_back(
          {r.name, plan.tensors[i].from, r.target, std::to_string(r.changed), fmt::format("{:.2e}", r.weight_error)});
  std::string out = table.rows.empty() ? "" : to_text(table) + "\n";
  out += fmt::format("{}: {}, {}, peak memory {}\n", output, human_bytes(report.output_bytes),
                     human_seconds(report.seconds), human_bytes(report.peak_memory_bytes));
  if (report.lossless())
    return out + fmt::format("lossless: every value of all {} tensors was compared\n", report.tensors.size());
  return out + fmt::format("{} of {} tensors changed; the errors above are shares of their power\n", table.rows.size(),
                           report.tensors.size());
}

}  // namespace

int convert_command(Session& session, std::span<const std::string> arguments) {
  ConvertOptions o;
  Options options = describe(o);
  if (!parse_command(options, session, arguments)) return 0;
  const auto source = open_model(o.model, session);
  const Plan plan = plan_conversion(source, to_settings(o, *source, session));
  if (o.dry_run) {
    session.result(to_json(plan), plan_text(plan));
    return 0;
  }
  const QuantizeReport report = quantize(plan, o.output, session.observer());
  session.end_progress();
  Json json = to_json(plan, report);
  json["lossless"] = report.lossless();
  session.result(json, done_text(plan, report, o.output));
  return 0;
}

}  // namespace pare::cli
