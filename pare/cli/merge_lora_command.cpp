// pare merge-lora: a PEFT adapter folded into its base.
#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/cli/commands.h"
#include "pare/convert/merge_lora.h"
#include "pare/quantize/pipeline.h"
#include "pare/quantize/report_json.h"
#include "pare/report/units.h"

namespace pare::cli {

int merge_lora_command(Session& session, std::span<const std::string> arguments) {
  std::string model, adapter, output, to = "safetensors";
  std::optional<std::string> dtype;
  bool force = false;
  ByteCount max_shard_size{int64_t{5} << 30};
  Options options({.command = "merge-lora",
                   .summary = "Folds a PEFT LoRA adapter into the weights of its base.",
                   .example = "pare merge-lora base-model adapter -o merged"});
  options
      .add(
          {.names = "MODEL", .target = &model, .help = "the base: HF directory, floats or quantized", .required = true})
      .add({.names = "ADAPTER", .target = &adapter, .help = "directory with adapter_config.json", .required = true})
      .add({.names = "-o,--output",
            .value = "OUT",
            .target = &output,
            .help = "new directory or file",
            .required = true})
      .add({.names = "--to", .value = "F", .target = &to, .help = "safetensors: floats (default); gguf, gptq, awq, …"})
      .add({.names = "--dtype", .value = "T", .target = &dtype, .help = "of floats: f32, f16 or bf16 (as stored)"})
      .add({.names = "--max-shard-size", .value = "SIZE", .target = &max_shard_size, .help = "of safetensors (5G)"})
      .add({.names = "--force", .target = &force, .help = "replace an existing output"});
  if (!parse_command(options, session, arguments)) return 0;

  ConversionSettings settings{.container = to};
  settings.dequantize = to == "safetensors";
  settings.max_shard_bytes = max_shard_size.value;
  settings.overwrite = force;
  if (dtype) {
    const pare::Target target = parse_target(*dtype);
    if (!std::holds_alternative<DType>(target))
      throw Error({.what = "not a type of floats",
                   .where = "--dtype",
                   .expected = "f32, f16 or bf16",
                   .got = *dtype,
                   .code = ExitCode::usage});
    settings.dtype = std::get<DType>(target);
  }
  for (const std::string& word : session.command_line) settings.command += (settings.command.empty() ? "" : " ") + word;

  const Plan plan = plan_merge(open_model(model, session), adapter, settings);
  const QuantizeReport report = quantize(plan, output, session.observer());
  session.end_progress();
  Json json = to_json(plan, report);
  json["merged"] = Json::array();
  for (const auto& [name, edit] : plan.edits) json["merged"].push_back(name);
  session.result(json, fmt::format("{}: {} tensors merged, {}, {}\n", output, plan.edits.size(),
                                   human_bytes(report.output_bytes), human_seconds(report.seconds)));
  return 0;
}

}  // namespace pare::cli
