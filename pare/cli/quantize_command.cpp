// pare quantize, pare plan, pare recipes: options become Settings, and results become text.
#include <fmt/format.h>

#include <algorithm>

#include "pare/base/error.h"
#include "pare/cli/commands.h"
#include "pare/quantize/report_json.h"
#include "pare/report/table.h"
#include "pare/report/units.h"

namespace pare::cli {
namespace {

struct QuantizeOptions {
  std::string model, output, recipe, recipe_file;
  std::optional<std::string> method, format, lm_head, embeddings;
  std::optional<int64_t> bits, group_size;
  std::optional<bool> sym, zero_point, desc_act;
  std::vector<std::string> tensors, skip;
  bool mse = true, static_groups = false, true_sequential = true, strict = false, force = false, dry_run = false;
  double damp_percent = 0.1;
  std::string calib_data = "builtin";
  int64_t calib_samples = 1024;
  std::optional<int64_t> calib_seqlen;
  ByteCount max_shard_size{int64_t{5} << 30};
  std::optional<ByteCount> max_ram;
  int64_t seed = 0;
};

Options describe(QuantizeOptions& o, bool plan_only) {
  Options options({.command = plan_only ? "plan" : "quantize",
                   .summary = plan_only ? "what quantizing would do: every tensor, exact size, memory, disk, time"
                                        : "turn a float model into a quantized checkpoint",
                   .example = plan_only ? "pare plan demo_model --recipe gptq-int4-g128"
                                        : "pare quantize demo_model -o demo-q4_k.gguf --recipe Q4_K"});
  options.add({.names = "MODEL", .target = &o.model, .help = "Hugging Face directory", .required = true});
  options.add({.names = "-o,--output",
               .value = "OUT",
               .target = &o.output,
               .help = "file (.gguf) or new directory (GPTQ)",
               .required = !plan_only});
  options.add({.names = "--recipe", .value = "NAME", .target = &o.recipe, .help = "a row of `pare recipes`"});
  options.add(
      {.names = "--recipe-file", .value = "FILE", .target = &o.recipe_file, .help = "a row of your own (JSON)"});
  options.add({.names = "--method", .value = "M", .target = &o.method, .help = "rtn or gptq"});
  options.add({.names = "--bits", .value = "N", .target = &o.bits, .help = "GPTQ files: 2, 3, 4 or 8 (default 4)"});
  options.add(
      {.names = "--group-size", .value = "N", .target = &o.group_size, .help = "columns per scale (128); -1: row"});
  options.add({.names = "--sym", .target = &o.sym, .help = "symmetric grid (default); false: zero points"});
  options.add({.names = "--zero-point", .target = &o.zero_point});
  options.add(
      {.names = "--desc-act", .target = &o.desc_act, .help = "groups along the columns' importance (GPTQ files)"});
  options.add({.names = "--damp-percent", .value = "X", .target = &o.damp_percent, .help = "GPTQ damping (0.1)"});
  options.add({.names = "--mse", .target = &o.mse, .help = "search scales of least error (default); false: range"});
  options.add({.names = "--static-groups", .target = &o.static_groups, .help = "all scales before error feedback"});
  options.add({.names = "--true-sequential", .target = &o.true_sequential});
  options.add({.names = "--calib-data", .value = "FILE", .target = &o.calib_data, .help = "text; default: built in"});
  options.add({.names = "--calib-samples",
               .value = "N",
               .target = &o.calib_samples,
               .help = "windows of text (1024)",
               .lowest = 1});
  options.add({.names = "--calib-seqlen",
               .value = "N",
               .target = &o.calib_seqlen,
               .help = "tokens each (context, ≤ 2048)",
               .lowest = 2});
  options.add({.names = "--format", .value = "F", .target = &o.format, .help = "gguf, gptq or gptq_v2"});
  options.add({.names = "--lm-head", .value = "GRID", .target = &o.lm_head, .help = "grid of the head, and"});
  options.add({.names = "--embeddings", .value = "GRID", .target = &o.embeddings, .help = "of the embeddings"});
  options.add(
      {.names = "--tensor", .value = "RE=GRID", .target = &o.tensors, .help = "grid of the tensors that match"});
  options.add({.names = "--skip", .value = "RE", .target = &o.skip, .help = "keep the tensors that match"});
  options.add({.names = "--max-ram", .value = "SIZE", .target = &o.max_ram, .help = "refuse a plan that needs more"});
  options.add({.names = "--max-shard-size", .value = "SIZE", .target = &o.max_shard_size});
  options.add({.names = "--strict", .target = &o.strict, .help = "refuse instead of falling back"});
  options.add({.names = "--seed", .value = "N", .target = &o.seed, .lowest = 0});
  if (plan_only) return options;
  options.add({.names = "--force", .target = &o.force, .help = "replace an existing output"});
  options.add({.names = "--dry-run", .target = &o.dry_run, .help = "the same as `pare plan`"});
  return options;
}

[[noreturn]] void refuse(const std::string& where, const std::string& what, const std::string& remedy) {
  throw Error({.what = what, .where = where, .remedy = remedy, .code = ExitCode::usage});
}

Recipe base_recipe(const QuantizeOptions& o) {
  if (!o.recipe.empty() && !o.recipe_file.empty())
    refuse("--recipe-file", "two recipes were given", "give --recipe or --recipe-file");
  if (!o.recipe_file.empty()) return read_recipe_file(o.recipe_file);
  if (!o.recipe.empty()) return find_recipe(o.recipe);
  if (o.method) return find_recipe(parse_method(*o.method) == Method::gptq ? "gptq-int4-g128" : "rtn-int4-g128");
  refuse("pare quantize", "nothing says what to make",
         "pass --recipe NAME (see `pare recipes`) or --method gptq --bits 4 --group-size 128");
}

void apply_grid_options(const QuantizeOptions& o, Recipe& recipe) {
  if (!o.bits && !o.group_size && !o.sym && !o.zero_point) return;
  auto* grid = std::get_if<Grid>(&recipe.linear);
  auto* affine = grid ? std::get_if<AffineSpec>(grid) : nullptr;
  if (!affine)
    refuse("--recipe " + recipe.name, "its grid has no bits, group size or zero points to choose",
           "leave those options away, or use --method gptq for GPTQ files");
  const AffineSpec before = *affine;
  if (o.bits) {
    if (*o.bits < 2 || *o.bits > 8) refuse("--bits", "no such width", "use 2, 3, 4 or 8");
    affine->bits = static_cast<int>(*o.bits);
  }
  if (o.group_size) {
    if (*o.group_size == 0 || *o.group_size < -1)
      refuse("--group-size", "not a number of columns", "use 32, 64, 128, … or -1 for the whole row");
    affine->group = std::max<int64_t>(0, *o.group_size);
  }
  if (o.sym) affine->symmetric = *o.sym;
  if (o.zero_point) affine->symmetric = !*o.zero_point;
  if (o.sym && o.zero_point && *o.sym == *o.zero_point)
    refuse("--zero-point", "contradicts --sym", "a symmetric grid has no zero points");
  if (*affine != before) recipe.name = std::string(name_of(recipe.method)) + "-" + name_of(*grid);
}

// A grid moved to another container: refused by the container itself while planning, where it must.
void apply_format(const QuantizeOptions& o, Recipe& recipe) {
  if (!o.format) return;
  for (const char* later : {"awq", "compressed-tensors", "bnb", "exl2"})
    if (*o.format == later)
      refuse("--format", fmt::format("writing {} is not built yet", later), "use gguf, gptq or gptq_v2 for now");
  recipe.container = *o.format;
}

std::pair<std::string, pare::Target> parse_override(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0)
    refuse("--tensor", fmt::format("\"{}\" is not REGEX=GRID", text), "for example --tensor 'down_proj=q6_k'");
  return {text.substr(0, equals), parse_target(text.substr(equals + 1))};
}

Settings to_settings(const QuantizeOptions& o, const Session& session) {
  Settings s;
  s.recipe = base_recipe(o);
  if (o.method) s.recipe.method = parse_method(*o.method);
  apply_grid_options(o, s.recipe);
  apply_format(o, s.recipe);
  if (o.lm_head) s.recipe.head = parse_target(*o.lm_head);
  if (o.embeddings) s.recipe.embedding = parse_target(*o.embeddings);
  for (const std::string& text : o.tensors) s.overrides.push_back(parse_override(text));
  s.skip = o.skip;
  if (!(o.damp_percent > 0 && o.damp_percent < 1)) refuse("--damp-percent", "out of range", "use 0.01 … 0.3");
  s.gptq.damp = o.damp_percent;
  s.gptq.static_groups = o.static_groups;
  s.gptq.fit.search = o.mse ? Search::error : Search::range;
  s.stored_order = o.desc_act.value_or(false);
  s.true_sequential = o.true_sequential;
  s.calibration = {.data = o.calib_data, .samples = o.calib_samples, .length = o.calib_seqlen.value_or(0)};
  s.max_shard_bytes = o.max_shard_size.value;
  s.max_memory = o.max_ram ? o.max_ram->value : 0;
  s.strict = o.strict;
  s.overwrite = o.force;
  s.seed = static_cast<uint64_t>(o.seed);
  for (const std::string& word : session.command_line) s.command += (s.command.empty() ? "" : " ") + word;
  return s;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t n : shape) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out.empty() ? "1" : out;
}

std::string notes_text(const Plan& plan) {
  std::string out;
  for (const Finding& f : plan.findings)
    out += fmt::format("{}: {}{}{}\n", name_of(f.severity), f.tensor.empty() ? "" : f.tensor + ": ", f.message,
                       f.remedy.empty() ? "" : "; " + f.remedy);
  for (const RuntimeVerdict& v : plan.runs_in)
    out += fmt::format("{:<14}{}{}\n", v.runtime, v.loads ? "loads it" : "does not load it as it is",
                       v.why.empty() ? "" : ": " + v.why);
  return out;
}

std::string plan_text(const Plan& plan) {
  Table table{.columns = {{"tensor"}, {"shape", Align::right}, {"from"}, {"becomes"}, {"by"}, {"bytes", Align::right}},
              .rows = {}};
  for (const PlannedTensor& t : plan.tensors)
    table.rows.push_back({t.name, shape_text(t.shape), t.from, name_of(t.target),
                          t.on_grid() ? std::string(name_of(t.method)) : "kept", std::to_string(t.bytes)});
  return to_text(table) + "\n" + notes_text(plan) +
         fmt::format("\nsize {} ({:.3f} bits per weight) · memory {} · disk {} · about {}\n",
                     human_bytes(plan.output_bytes), plan.bits_per_weight, human_bytes(plan.peak_memory_bytes),
                     human_bytes(plan.disk_bytes), human_seconds(plan.estimated_seconds));
}

std::string done_text(const Plan& plan, const QuantizeReport& report, const std::string& output) {
  double worst = 0;
  std::string worst_name;
  for (const TensorReport& r : report.tensors)
    if (const double e = r.output_error >= 0 ? r.output_error : r.weight_error; e > worst)
      worst = e, worst_name = r.name;
  std::string out =
      fmt::format("{}: {} ({:.3f} bits per weight), {}, peak memory {}\n", output, human_bytes(report.output_bytes),
                  plan.bits_per_weight, human_seconds(report.seconds), human_bytes(report.peak_memory_bytes));
  if (!worst_name.empty()) out += fmt::format("largest error: {:.2e} of the power in {}\n", worst, worst_name);
  out += notes_text(plan);
  return out;
}

int plan_or_quantize(Session& session, std::span<const std::string> arguments, bool plan_only) {
  QuantizeOptions o;
  Options options = describe(o, plan_only);
  if (!parse_command(options, session, arguments)) return 0;
  const Plan plan = make_plan(Checkpoint::open(o.model), to_settings(o, session));
  if (plan_only || o.dry_run) {
    session.result(to_json(plan), plan_text(plan));
    return 0;
  }
  for (const Finding& f : plan.findings)
    if (f.severity != Finding::Severity::note) session.warning((f.tensor.empty() ? "" : f.tensor + ": ") + f.message);
  const QuantizeReport report = quantize(plan, o.output, session.observer());
  session.end_progress();
  session.result(to_json(plan, report), done_text(plan, report, o.output));
  return 0;
}

}  // namespace

int plan_command(Session& session, std::span<const std::string> arguments) {
  return plan_or_quantize(session, arguments, true);
}

int quantize_command(Session& session, std::span<const std::string> arguments) {
  return plan_or_quantize(session, arguments, false);
}

int recipes_command(Session& session, std::span<const std::string> arguments) {
  Options options({.command = "recipes", .summary = "the named recipes", .example = "pare recipes"});
  if (!parse_command(options, session, arguments)) return 0;
  Json list = Json::array();
  Table table{.columns = {{"recipe"}, {"method"}, {"files"}, {"linear layers"}, {"what it is"}}, .rows = {}};
  for (const Recipe& r : all_recipes()) {
    list.push_back({{"name", r.name},
                    {"method", std::string(name_of(r.method))},
                    {"container", r.container},
                    {"linear", name_of(r.linear)},
                    {"summary", r.summary}});
    table.rows.push_back({r.name, std::string(name_of(r.method)), r.container, name_of(r.linear), r.summary});
  }
  session.result({{"recipes", std::move(list)}}, to_text(table));
  return 0;
}

}  // namespace pare::cli
