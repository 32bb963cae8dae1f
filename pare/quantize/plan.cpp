#include "pare/quantize/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <regex>

#include "pare/base/error.h"
#include "pare/base/output.h"
#include "pare/base/system.h"
#include "pare/quantize/layout.h"
#include "pare/quantize/mixture.h"
#include "pare/quantize/price.h"

namespace pare {
namespace {

bool is_block_linear(const PlannedTensor& t) {
  return t.role && t.layer >= 0 && t.shape.size() == 2 && site_of(*t.role) && t.name.ends_with(".weight");
}

std::regex compile(const std::string& pattern) {
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& e) {
    throw Error({.what = "not a valid regular expression",
                 .where = "--tensor or --skip",
                 .got = fmt::format("\"{}\" ({})", pattern, e.what()),
                 .code = ExitCode::usage});
  }
}

// What the recipe and the user's overrides want of a tensor.
class Wishes {
 public:
  Wishes(const Settings& settings, const Config& config, const std::string& architecture,
         const std::vector<PlannedTensor>& tensors)
      : settings_(settings), config_(config) {
    if (const Mixture* mixture = find_mixture(settings.recipe.mixture)) mix_in(*mixture, architecture, tensors);
    for (const auto& [pattern, target] : settings.overrides) overrides_.emplace_back(compile(pattern), target);
    for (const std::string& pattern : settings.skip) skip_.push_back(compile(pattern));
  }

  // Unset: keep the numbers as the layout plans them.
  std::optional<Target> of(const PlannedTensor& t) const {
    const auto matches = [&](const std::regex& r) {
      return std::regex_search(t.name, r) || std::regex_search(t.source, r);
    };
    if (std::any_of(skip_.begin(), skip_.end(), matches)) return std::nullopt;
    std::optional<Target> wish = by_role(t);
    for (const auto& [pattern, target] : overrides_)
      if (matches(pattern)) wish = target;
    return wish;
  }
  void check_overrides(const std::vector<PlannedTensor>& tensors) const {
    for (size_t i = 0; i < overrides_.size(); ++i)
      if (std::none_of(tensors.begin(), tensors.end(), [&](const PlannedTensor& t) {
            return std::regex_search(t.name, overrides_[i].first) || std::regex_search(t.source, overrides_[i].first);
          }))
        throw Error({.what = "no tensor matches",
                     .where = fmt::format("--tensor '{}=…'", settings_.overrides[i].first),
                     .remedy = "`pare inspect --tensors` lists the names",
                     .code = ExitCode::usage});
  }

 private:
  void mix_in(const Mixture& mixture, const std::string& architecture, const std::vector<PlannedTensor>& tensors) {
    const int64_t kv_heads = std::max<int64_t>(1, config_.kv_heads);
    const MixtureModel model{.layers = config_.layers,
                             .heads_per_kv = static_cast<double>(config_.heads) / static_cast<double>(kv_heads),
                             .experts = config_.moe ? config_.moe->experts : 0,
                             .llama = architecture == "llama"};
    std::vector<MixtureTensor> mixed;
    for (const PlannedTensor& t : tensors)
      if (is_block_linear(t) || (t.shape.size() == 2 && (t.role == Role::head || t.role == Role::token_embedding)))
        mixed.push_back({t.name, t.shape[1], false});
    const std::vector<Grid> grids = mix(mixture, model, mixed);
    for (size_t i = 0; i < mixed.size(); ++i) mixed_.emplace(mixed[i].name, grids[i]);
  }

  std::optional<Target> by_role(const PlannedTensor& t) const {
    const Recipe& r = settings_.recipe;
    const bool asked = (t.role == Role::head && r.head) || (t.role == Role::token_embedding && r.embedding);
    if (const auto mixed = mixed_.find(t.name); mixed != mixed_.end() && !asked) return mixed->second;
    if (is_block_linear(t)) return r.linear;
    if (t.shape.size() != 2 || !t.role) return std::nullopt;
    if (*t.role == Role::head) return r.head;
    if (*t.role == Role::token_embedding) return config_.tied_head && r.head ? r.head : r.embedding;
    return std::nullopt;
  }

  const Settings& settings_;
  const Config& config_;
  std::vector<std::pair<std::regex, Target>> overrides_;
  std::vector<std::regex> skip_;
  std::map<std::string, Grid> mixed_;
};

std::string why_not_divisible(const Grid& grid, int64_t cols) {
  return fmt::format("{} columns are no multiple of {}, {} cannot hold them", cols, window_of(grid, cols),
                     name_of(grid));
}

std::string groups_that_divide(int64_t cols) {
  std::string out;
  for (const int64_t g : {16, 32, 64, 128, 256})
    if (cols % g == 0) out += fmt::format("{}{}", out.empty() ? "" : ", ", g);
  return out.empty() ? "-1 (the whole row)" : out + " or -1 (the whole row)";
}

// The type of the floats that a tensor is made from.
DType floats_of(const PlannedTensor& t) {
  const auto type = dtype_from_name(t.from);
  return type && (*type == DType::bf16 || *type == DType::f32) ? *type : DType::f16;
}

class Planner {
 public:
  explicit Planner(Plan& plan)
      : plan_(plan), wishes_(plan.settings, plan.config, std::string(plan.arch->gguf), plan.tensors) {}

  void assign(PlannedTensor& t) {
    const std::optional<Target> wish = wishes_.of(t);
    if (wish) {
      if (const Grid* grid = std::get_if<Grid>(&*wish))
        put_on_grid(t, *grid);
      else if (t.shape.size() == 2)
        t.target = *wish;
    }
    t.method = t.on_grid() && is_block_linear(t) ? plan_.settings.recipe.method : Method::rtn;
  }
  const Wishes& wishes() const { return wishes_; }

 private:
  void put_on_grid(PlannedTensor& t, const Grid& wanted) {
    const bool ordered = plan_.settings.gptq.order == ColumnOrder::stored && is_block_linear(t) &&
                         plan_.settings.recipe.method == Method::gptq;
    const Verdict verdict = plan_.container->accept(wanted, ordered);
    if (!verdict.grid)
      throw Error({.what = fmt::format("the {} container cannot hold this: {}", plan_.container->name, verdict.why),
                   .where = t.name,
                   .expected = "a grid of this container",
                   .got = name_of(wanted),
                   .remedy = verdict.remedy});
    if (t.role == Role::token_embedding && !plan_.container->embeddings)
      throw Error({.what = fmt::format("the {} container holds embeddings as floats", plan_.container->name),
                   .where = t.name,
                   .got = name_of(wanted),
                   .remedy = "leave --embeddings away, or write a GGUF file"});
    const int64_t cols = t.shape[1];
    if (divides(*verdict.grid, cols)) {
      place(t, *verdict.grid);
      return;
    }
    if (const auto* affine = std::get_if<AffineSpec>(&*verdict.grid))
      throw Error({.what = "the group size does not divide the columns",
                   .where = t.name,
                   .expected = fmt::format("a divisor of {}: {}", cols, groups_that_divide(cols)),
                   .got = std::to_string(affine->group),
                   .remedy = "pass another --group-size, or keep the tensor with --skip"});
    fall_back(t, *verdict.grid, cols);
  }

  void fall_back(PlannedTensor& t, const Grid& grid, int64_t cols) {
    const std::string why = why_not_divisible(grid, cols);
    const std::optional<Grid> instead = grid_instead(grid, cols);
    const Target other = instead ? Target(*instead) : Target(DType::f16);
    const double bits = std::holds_alternative<Grid>(other) ? bits_per_weight(std::get<Grid>(other), t.matrix_shape())
                                                            : static_cast<double>(info(std::get<DType>(other)).bits);
    if (plan_.settings.strict)
      throw Error({.what = why, .where = t.name, .remedy = "leave --strict away to use " + name_of(other)});
    t.target = other;
    t.reason = fmt::format("{}; using {} ({:+.1f} bits per weight here)", why, name_of(other),
                           bits - bits_per_weight(grid, {t.shape[0], 256}));
    plan_.findings.push_back({Finding::Severity::warning, t.name, t.reason, "pass --strict to refuse"});
  }

  // What the container cannot lay out is kept and listed as such.
  void place(PlannedTensor& t, const Grid& grid) {
    const Verdict placed =
        plan_.container->place ? plan_.container->place(grid, t.matrix_shape(), floats_of(t)) : Verdict{grid, "", ""};
    if (placed.grid) {
      t.target = *placed.grid;
      return;
    }
    t.reason = placed.why + "; kept as stored";
    if (plan_.settings.strict) throw Error({.what = t.reason, .where = t.name, .remedy = "leave --strict away"});
    plan_.findings.push_back({Finding::Severity::warning, t.name, t.reason, "pass --strict to refuse"});
  }

  Plan& plan_;
  Wishes wishes_;
};

void refuse_unusable_sources(const Checkpoint& checkpoint) {
  if (checkpoint.quantization() != "none")
    throw Error(
        {.what = "the model is quantized already",
         .where = checkpoint.path().string(),
         .expected = "float weights",
         .got = checkpoint.quantization(),
         .remedy = "quantize the original model: doing it twice adds the errors; `pare convert` changes formats"});
}

// desc_act by default where a stored order is free to have (it is not in any container's favour otherwise).
void settle_order(Plan& plan) {
  GptqOptions& gptq = plan.settings.gptq;
  if (plan.settings.stored_order) gptq.order = ColumnOrder::stored;
  if (gptq.order != ColumnOrder::stored) return;
  const Grid* grid = std::get_if<Grid>(&plan.settings.recipe.linear);
  if (!grid || plan.settings.recipe.method != Method::gptq) {
    gptq.order = ColumnOrder::windows;
    return;
  }
  const Verdict verdict = plan.container->accept(*grid, true);
  if (verdict.grid) return;
  if (plan.settings.strict || !plan.container->accept(*grid, false).grid)
    throw Error({.what = verdict.why, .where = "--desc-act", .remedy = verdict.remedy});
  gptq.order = ColumnOrder::windows;
  plan.findings.push_back({Finding::Severity::note, "",
                           verdict.why + "; columns are visited by importance without storing the order",
                           "pass --strict to refuse"});
}

OutputTensor to_output(const Plan& plan, const PlannedTensor& t) {
  OutputTensor out{.name = t.name, .shape = t.shape, .grid = {}};
  if (const Grid* grid = std::get_if<Grid>(&t.target)) {
    out.grid = *grid;
    out.dtype = floats_of(t);
    out.ordered = plan.settings.gptq.order == ColumnOrder::stored && t.method == Method::gptq;
    if (t.method == Method::convert) out.ordered = plan.container->accept(*grid, true).grid.has_value();
  } else {
    out.dtype = std::get<DType>(t.target);
  }
  return out;
}

int64_t bytes_of(const PlannedTensor& t) {
  if (const Grid* grid = std::get_if<Grid>(&t.target))
    return std::llround(bits_per_weight(*grid, t.matrix_shape()) * static_cast<double>(t.size()) / 8);
  return t.size() * info(std::get<DType>(t.target)).bits / 8;
}

int64_t window_length(const Plan& plan) {
  const int64_t limit = plan.config.context > 0 ? plan.config.context : 2048;
  const int64_t asked = plan.settings.calibration.length;
  if (asked > limit)
    throw Error({.what = "the calibration windows are longer than the model's context",
                 .where = "--calib-seqlen",
                 .expected = fmt::format("at most {}", limit),
                 .got = std::to_string(asked),
                 .code = ExitCode::usage});
  return asked > 0 ? asked : std::min<int64_t>(limit, 2048);
}

std::shared_ptr<const CalibrationPlan> plan_calibration(Plan& plan) {
  const CalibrationSettings& c = plan.settings.calibration;
  const Corpus corpus = c.data == "builtin" ? builtin_corpus() : read_corpus(c.data);
  const Checkpoint& source = *plan.checkpoint;
  const auto tokenizer = source.format() == Format::gguf
                             ? Tokenizer::from_metadata(source.metadata(), source.path().string())
                             : Tokenizer::from_directory(source.path());
  auto out = std::make_shared<CalibrationPlan>();
  out->source = corpus.name;
  out->sha256 = corpus.sha256;
  out->cut = cut_windows(corpus, *tokenizer, c.samples, window_length(plan), plan.settings.seed);
  if (out->cut.tokens() < 10 * plan.config.ffn)
    plan.findings.push_back({Finding::Severity::warning, "",
                             fmt::format("only {} tokens of calibration text: ten per input column ({}) are the least "
                                         "that calibrated solvers want",
                                         out->cut.tokens(), 10 * plan.config.ffn),
                             "give more text with --calib-data"});
  return out;
}

void price(Plan& plan) {
  int64_t weights = 0, bytes = 0;
  for (PlannedTensor& t : plan.tensors) {
    t.bytes = bytes_of(t);
    weights += t.size();
    bytes += t.bytes;
  }
  plan.bits_per_weight = weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0;
  plan.output_bytes = plan.container->output_bytes(plan.output);
  plan.disk_bytes = plan.output_bytes + (int64_t{1} << 20);
  for (const auto& file : plan.output.carried)
    plan.disk_bytes += static_cast<int64_t>(std::filesystem::file_size(file));
  plan.peak_memory_bytes = estimate_memory(plan);
  plan.estimated_seconds = estimate_seconds(plan);
  plan.runs_in = judge_runtimes(plan);
}

}  // namespace

int64_t PlannedTensor::size() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

Shape PlannedTensor::matrix_shape() const {
  if (shape.empty()) return {1, 1};
  return {size() / std::max<int64_t>(1, shape.back()), shape.back()};
}

std::string_view name_of(Finding::Severity severity) {
  switch (severity) {
    case Finding::Severity::note:
      return "note";
    case Finding::Severity::warning:
      return "warning";
    case Finding::Severity::error:
      return "error";
  }
  return "";
}

Plan begin_plan(std::shared_ptr<const Checkpoint> checkpoint, const Settings& settings) {
  Plan plan;
  plan.settings = settings;
  plan.checkpoint = std::move(checkpoint);
  plan.config = read_config(*plan.checkpoint);
  plan.arch = &find_arch(plan.config.architecture);
  check_shapes(plan.config, *plan.arch, *plan.checkpoint);
  plan.container = &find_container(settings.recipe.container);
  plan.tensors = lay_out(plan);
  return plan;
}

// A Conv1D's floats lie as [in, out] in HF directories and as [out, in] everywhere else, on grids too.
void keep_orientation(const Plan& plan, PlannedTensor& t) {
  if (t.on_grid() || plan.container->name == "gguf" || t.shape.size() != 2 || !t.role) return;
  if (!find_tensor(*plan.arch, *t.role)->transposed) return;
  t.transposed = !t.transposed;
  std::swap(t.shape[0], t.shape[1]);
}

void finish_plan(Plan& plan) {
  for (const PlannedTensor& t : plan.tensors) plan.output.tensors.push_back(to_output(plan, t));
  describe_output(plan);
  price(plan);
}

Plan make_plan(std::shared_ptr<const Checkpoint> checkpoint, const Settings& settings) {
  refuse_unusable_sources(*checkpoint);
  Plan plan = begin_plan(std::move(checkpoint), settings);
  settle_order(plan);
  Planner planner(plan);
  planner.wishes().check_overrides(plan.tensors);
  for (PlannedTensor& t : plan.tensors) {
    planner.assign(t);
    keep_orientation(plan, t);
  }
  const bool any_gptq = std::any_of(plan.tensors.begin(), plan.tensors.end(),
                                    [](const PlannedTensor& t) { return t.method == Method::gptq; });
  if (any_gptq) plan.calibration = plan_calibration(plan);
  finish_plan(plan);
  return plan;
}

void check_room(const Plan& plan, const std::filesystem::path& output) {
  check_output_path(output.has_filename() ? output : output.parent_path(), plan.settings.overwrite);
  const auto mib = [](int64_t bytes) { return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1 << 20)); };
  const int64_t disk = free_disk_bytes(output);
  if (plan.disk_bytes > disk)
    throw Error({.what = "the output does not fit on the disk",
                 .where = output.string(),
                 .expected = mib(plan.disk_bytes) + " free",
                 .got = mib(disk),
                 .remedy = "free some space or write to another disk",
                 .code = ExitCode::no_room});
  const int64_t available = available_memory_bytes();
  const int64_t cap = plan.settings.max_memory > 0 ? plan.settings.max_memory : available;
  if (plan.peak_memory_bytes > cap)
    throw Error({.what = "not enough memory for this plan",
                 .where = plan.settings.max_memory > 0 ? "--max-ram" : "this machine",
                 .expected = mib(plan.peak_memory_bytes),
                 .got = mib(cap),
                 .remedy = plan.calibrates() ? "use fewer --calib-samples, a shorter --calib-seqlen, or --method rtn"
                                             : "use a machine with more memory",
                 .code = ExitCode::no_room});
}

}  // namespace pare
