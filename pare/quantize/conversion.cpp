#include "pare/quantize/conversion.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "pare/base/error.h"
#include "pare/grid/embed.h"
#include "pare/quantize/layout.h"
#include "pare/quantize/source.h"
#include "pare/solver/solver.h"

namespace pare {
namespace {

// Bits per weight that a grid may take beyond the source's: to contain its values, or only to come near them.
constexpr double kLosslessExtra = 2.01, kNearExtra = 0.76;
constexpr int64_t kSampleRows = 8;

bool is_float_matrix_type(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

std::vector<int64_t> sample_rows(int64_t rows) {
  std::vector<int64_t> out(static_cast<size_t>(std::min(rows, kSampleRows)));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int64_t>(i) * rows / std::ssize(out);
  return out;
}

double squared_error(const Quantized& q, const Matrix& wanted) {
  const Matrix got = dequantize(q);
  double error = 0;
  for (int64_t i = 0; i < wanted.size(); ++i) {
    const double d = static_cast<double>(got.data()[i]) - wanted.data()[i];
    error += d * d;
  }
  return error;
}

// Every grid that some file stores: the named ones, and integers of all widths in the usual groups and the source's.
std::vector<Grid> grids_to_try(const Grid& source, int64_t cols) {
  std::vector<Grid> out(named_grids().begin(), named_grids().end());
  std::vector<int64_t> groups = {32, 64, 128, window_of(source, cols)};
  std::sort(groups.begin(), groups.end());
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
  for (int bits = 2; bits <= 8; ++bits)
    for (const int64_t group : groups)
      for (const bool symmetric : {true, false})
        out.push_back(AffineSpec{.bits = bits, .group = group == cols ? 0 : group, .symmetric = symmetric});
  return out;
}

// Where a matrix goes.
struct Home {
  Target target = DType::f16;
  bool lossless = true;
};

class Converter {
 public:
  Converter(Plan& plan, const ConversionSettings& settings) : plan_(plan), settings_(settings) {}

  void assign(PlannedTensor& t) {
    t.method = Method::convert;
    const auto grid = t.source.empty() ? std::nullopt : plan_.checkpoint->grid_of_weight(t.source);
    if (grid)
      assign_quantized(t, *grid);
    else
      assign_floats(t);
  }

 private:
  // ---- floats
  void assign_floats(PlannedTensor& t) const {
    if (t.source.empty()) return;  // made by the layout
    const auto stored = dtype_from_name(t.from);
    if (!stored || !is_float_matrix_type(*stored)) return;
    const bool vector_of_gguf = plan_.container->name == "gguf" && std::get<DType>(t.target) == DType::f32;
    if (settings_.dtype && !vector_of_gguf)
      t.target = *settings_.dtype;
    else if (t.shape.size() == 2 && !vector_of_gguf)
      t.target = *stored;
    else if (plan_.checkpoint->format() == Format::gguf && plan_.container->name != "gguf" && holds(t, model_dtype()))
      t.target = model_dtype();  // GGUF keeps vectors in f32 whatever they were
  }
  bool holds(const PlannedTensor& t, DType type) const {
    const Matrix m = load_source(plan_, t);
    std::vector<std::byte> bytes(static_cast<size_t>(m.size() * info(type).bits / 8));
    from_f32(type, m.values(), bytes);
    Matrix back(m.rows(), m.cols());
    to_f32(type, bytes, back.values());
    return back == m;
  }
  // What the model computes in: as its configuration says, or as most of its matrices are stored.
  DType model_dtype() const {
    if (settings_.dtype) return *settings_.dtype;
    if (const auto named = dtype_from_safetensors_name(plan_.config.dtype)) return *named;
    std::map<DType, int64_t> weights;
    for (const PlannedTensor& t : plan_.tensors)
      if (const auto type = dtype_from_name(t.from); type && t.shape.size() == 2) weights[*type] += t.size();
    for (const DType type : {DType::bf16, DType::f32})
      if (weights[type] > weights[DType::f16]) return type;
    return DType::f16;
  }
  static std::optional<DType> dtype_from_safetensors_name(const std::string& name) {
    if (name == "bfloat16") return DType::bf16;
    if (name == "float16") return DType::f16;
    if (name == "float32") return DType::f32;
    return std::nullopt;
  }

  // ---- quantized matrices
  void assign_quantized(PlannedTensor& t, const Grid& source) {
    if (settings_.dequantize || !may_lie_on_a_grid(t)) {
      to_floats(t, "");
      return;
    }
    const Home home = home_of(t, source);
    if (!std::holds_alternative<Grid>(home.target)) {
      to_floats(t, fmt::format("the {} container holds no grid like {}", plan_.container->name, name_of(source)));
      return;
    }
    t.target = home.target;
    if (home.lossless) return;
    t.reason = fmt::format("{} does not contain the values of {}; quantized again from them", name_of(t.target),
                           name_of(source));
    if (settings_.strict) throw Error({.what = t.reason, .where = t.name, .remedy = "leave --strict away"});
  }

  // A repack, which a sample decides for all matrices of its kind; else each matrix is looked at as a whole.
  Home home_of(const PlannedTensor& t, const Grid& source) {
    const bool undo_order = !plan_.container->accept(source, true).grid;
    const std::string key = fmt::format("{} {}x{}", name_of(source), t.shape[0] % 128, t.shape[1]);
    if (const auto known = repacks_.find(key); known != repacks_.end() && !undo_order) return known->second;
    const Home home = find_home(t, source, undo_order);
    if (const auto own = placed(source, t); own && home.lossless && home.target == Target(*own)) repacks_[key] = home;
    return home;
  }

  // Embeddings and heads only where readers take them so.
  bool may_lie_on_a_grid(const PlannedTensor& t) const {
    if (t.shape.size() != 2 || !t.name.ends_with(".weight")) return false;
    if (plan_.container->name == "gguf" || plan_.container->embeddings) return true;
    return t.layer >= 0 || (t.role == Role::head && plan_.checkpoint->format() == Format::huggingface);
  }
  void to_floats(PlannedTensor& t, std::string why) const {
    if (settings_.strict && !why.empty()) throw Error({.what = why, .where = t.name, .remedy = "leave --strict away"});
    t.target = model_dtype();
    t.reason = std::move(why);
  }

  std::optional<Grid> placed(const Grid& grid, const PlannedTensor& t) const {
    const Verdict verdict = plan_.container->accept(grid, false);
    if (!verdict.grid || !divides(*verdict.grid, t.shape[1])) return std::nullopt;
    if (!plan_.container->place) return verdict.grid;
    return plan_.container->place(*verdict.grid, t.matrix_shape(), model_dtype()).grid;
  }

  Home find_home(const PlannedTensor& t, const Grid& source, bool undo_order) const {
    const Weight weight = plan_.checkpoint->load(t.source);
    const auto& q = std::get<Quantized>(weight);
    const std::vector<int64_t> rows = sample_rows(q.shape().rows);
    const Home home = settings_.grid ? wished(*settings_.grid, t, q, rows) : smallest(t, source, q, rows, !undo_order);
    plan_.checkpoint->forget(t.source);
    if (undo_order && !q.order.empty() && !home.lossless && std::holds_alternative<Grid>(home.target))
      throw Error({.what = fmt::format("the {} container cannot store the order of this matrix's columns (g_idx), and "
                                       "undoing it would change values",
                                       plan_.container->name),
                   .where = t.name,
                   .expected = "columns in place",
                   .got = fmt::format("{} with a column order", name_of(source)),
                   .remedy = "convert to gptq, which stores the order, or pass --dequantize"});
    return home;
  }

  Home wished(const Grid& grid, const PlannedTensor& t, const Quantized& q, std::span<const int64_t> rows) const {
    const auto there = placed(grid, t);
    if (there) return {*there, embed(q, *there, rows).changed == 0};
    const Verdict verdict = plan_.container->accept(grid, false);
    throw Error(
        {.what = fmt::format("the {} container cannot hold this matrix on {}", plan_.container->name, name_of(grid)),
         .where = t.name,
         .got = verdict.grid ? fmt::format("{} x {}", t.shape[0], t.shape[1]) : verdict.why,
         .remedy = verdict.remedy.empty() ? "leave --grid away" : verdict.remedy});
  }

  // The smallest grid that contains the matrix (a sample is tried first); else the nearest of about the source's size;
  // else none.
  Home smallest(const PlannedTensor& t, const Grid& source, const Quantized& q, std::span<const int64_t> rows,
                bool keep_order) const {
    const double bits = bits_per_weight(source, q.shape());
    std::vector<std::pair<double, Grid>> candidates;
    for (const Grid& grid : grids_to_try(source, q.shape().cols))
      if (const auto there = placed(grid, t))
        if (const double b = bits_per_weight(*there, q.shape()); b <= bits + kLosslessExtra)
          candidates.emplace_back(b, *there);
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto own = placed(source, t);
    if (own) candidates.insert(candidates.begin(), {bits, *own});

    if (own && *own == source && (keep_order || q.order.empty())) return {*own, true};
    Matrix wanted(std::ssize(rows), q.shape().cols);
    for (int64_t r = 0; r < wanted.rows(); ++r) {
      const int64_t row = rows[static_cast<size_t>(r)];
      dequantize_rows(q, row, row + 1, wanted.row(r));
    }
    Home nearest;
    double least = -1;
    for (const auto& [b, grid] : candidates) {
      const Embedded moved = embed(q, grid, rows, keep_order);
      if (moved.changed == 0 && (grid == own || embed(q, grid, {}, keep_order).changed == 0)) return {grid, true};
      const Quantized anew = round_to_nearest(wanted, grid, {.nearest_follows = true});
      const double error = std::min(squared_error(moved.q, wanted), squared_error(anew, wanted));
      if (b > bits + kNearExtra || (least >= 0 && error >= least)) continue;
      least = error;
      nearest = {grid, false};
    }
    if (least < 0) nearest.target = model_dtype();
    return nearest;
  }

  Plan& plan_;
  const ConversionSettings& settings_;
  std::map<std::string, Home> repacks_;
};

// The target of most weights: what the file's type and its report are named after.
Target most_common(const std::vector<PlannedTensor>& tensors) {
  std::map<std::string, int64_t> weights;
  for (const PlannedTensor& t : tensors)
    if (t.layer >= 0 && t.shape.size() == 2) weights[name_of(t.target)] += t.size();
  Target best = DType::f16;
  int64_t most = -1;
  for (const PlannedTensor& t : tensors)
    if (const int64_t n = weights[name_of(t.target)]; t.layer >= 0 && t.shape.size() == 2 && n > most)
      most = n, best = t.target;
  return best;
}

Settings to_settings(const ConversionSettings& s) {
  Settings out;
  out.recipe = {.name = "convert", .container = s.container, .method = Method::convert, .summary = {}};
  out.max_shard_bytes = s.max_shard_bytes;
  out.strict = s.strict;
  out.overwrite = s.overwrite;
  out.command = s.command;
  return out;
}

}  // namespace

Plan plan_conversion(std::shared_ptr<const Checkpoint> checkpoint, const ConversionSettings& settings, Edits edits) {
  Plan plan = begin_plan(std::move(checkpoint), to_settings(settings));
  plan.edits = std::move(edits);
  Converter converter(plan, settings);
  for (PlannedTensor& t : plan.tensors) {
    converter.assign(t);
    keep_orientation(plan, t);
    if (t.on_grid() && plan.edits.contains(t.source)) t.method = Method::rtn;
    if (!t.reason.empty()) plan.findings.push_back({Finding::Severity::note, t.name, t.reason, ""});
  }
  plan.settings.recipe.linear = most_common(plan.tensors);
  finish_plan(plan);
  return plan;
}

}  // namespace pare
