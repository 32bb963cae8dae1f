#include "pare/quantize/pipeline.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/base/sha256.h"
#include "pare/base/system.h"
#include "pare/calibrate/statistics.h"
#include "pare/grid/embed.h"
#include "pare/quantize/report_json.h"
#include "pare/quantize/source.h"
#include "pare/quantize/verify.h"

namespace pare {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What calibration knows about the input of the linears being solved.
struct SiteKnowledge {
  InputStatistics statistics;
  std::vector<float> importance;                             // diag(H)
  std::map<std::pair<int64_t, int>, HessianFactor> factors;  // by window and step: matrices on equal ones share one
};

class Pipeline {
 public:
  Pipeline(const Plan& plan, Writer& writer, const Observer& observer)
      : plan_(plan), writer_(writer), observer_(observer) {
    report_.tensors.resize(plan.tensors.size());
    for (size_t i = 0; i < plan.tensors.size(); ++i) by_source_[plan.tensors[i].source] = i;
  }

  QuantizeReport run() {
    if (plan_.calibrates()) quantize_blocks();
    for (size_t i = 0; i < plan_.tensors.size(); ++i)
      if (report_.tensors[i].name.empty()) write_alone(i);
    return std::move(report_);
  }

 private:
  // ---- without calibration: one tensor at a time
  void write_alone(size_t index) {
    check_interrupt();
    const auto start = Clock::now();
    const PlannedTensor& t = plan_.tensors[index];
    TensorReport& r = begin(index);
    if (t.on_grid() && t.method == Method::convert) {
      move(r, t);
    } else if (t.on_grid()) {
      const Matrix w = load_source(plan_, t);
      const Quantized q = round_to_nearest(w, std::get<Grid>(t.target),
                                           {.search = plan_.settings.gptq.fit.search, .nearest_follows = true});
      write(r, q, w);
    } else if (const auto stored = stored_bytes(plan_, t)) {
      write(r, *stored);
    } else {
      const Matrix m = load_source(plan_, t);
      const std::vector<std::byte> bytes = plain_bytes(m, t);
      write(r, bytes);
      if (t.method == Method::convert) measure(r, m, bytes, std::get<DType>(t.target));
    }
    if (!t.source.empty()) plan_.checkpoint->forget(t.source);
    end(r, start);
  }

  // A quantized matrix onto its new grid: as it is where the grid contains it, else by whichever of two ways comes
  // nearer, the source's parameters or new ones.
  void move(TensorReport& r, const PlannedTensor& t) {
    const Weight weight = plan_.checkpoint->load(t.source);
    const auto& source = std::get<Quantized>(weight);
    const Grid& grid = std::get<Grid>(t.target);
    const bool keep_order = plan_.container->accept(grid, true).grid.has_value();
    const Embedded moved = embed(source, grid, t.row_order, keep_order);
    r.changed = moved.changed;
    if (moved.changed == 0) return write(r, moved.q, Matrix());
    const Matrix w = take_rows(dequantize(source), t.row_order);
    const Quantized anew =
        round_to_nearest(w, grid, {.search = plan_.settings.gptq.fit.search, .nearest_follows = true});
    const bool better = assess(anew, w).error < assess(moved.q, w).error;
    if (better) r.changed = count_changed(anew, w);
    write(r, better ? anew : moved.q, w);
  }
  static void measure(TensorReport& r, const Matrix& wanted, std::span<const std::byte> bytes, DType type) {
    Matrix got(wanted.rows(), wanted.cols());
    to_f32(type, bytes, got.values());
    double error = 0, power = 0;
    for (int64_t i = 0; i < wanted.size(); ++i) {
      const double x = wanted.data()[i], d = x - got.data()[i];
      error += d * d;
      power += x * x;
      r.changed += d != 0 ? 1 : 0;
    }
    r.weight_error = power > 0 ? error / power : 0;
  }

  // ---- with calibration: block by block, each calibrated on what the quantized ones before it really output
  void quantize_blocks() {
    Decoder model(plan_.checkpoint);
    std::vector<Matrix> hidden = embed_windows(model);
    const auto layers = static_cast<int>(plan_.config.layers);
    for (int layer = 0; layer < layers; ++layer) {
      if (plan_.settings.true_sequential)
        quantize_in_sequence(model, layer, hidden);
      else
        quantize_at_once(model, layer, hidden);
      model.forget_layer(layer);
    }
  }

  std::vector<Matrix> embed_windows(const Decoder& model) {
    const TokenWindows& cut = plan_.calibration->cut;
    std::vector<Matrix> hidden(cut.windows.size());
    for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = model.embed(cut.windows[i]);
    return hidden;
  }

  void quantize_in_sequence(Decoder& model, int layer, std::vector<Matrix>& hidden) {
    const std::vector<Tap> taps = model.taps(layer);
    const auto solve_half = [&](bool attention) {
      for (const Tap tap : taps)
        if (is_in_attention(tap.site) == attention) solve_tap(model, layer, tap, study(model, layer, tap, hidden));
    };
    solve_half(true);
    advance_attention(model, layer, hidden);
    solve_half(false);
    advance_feed_forward(model, layer, hidden);
  }

  // All statistics of the block come from its float weights.
  void quantize_at_once(Decoder& model, int layer, std::vector<Matrix>& hidden) {
    const std::vector<Tap> taps = model.taps(layer);
    std::vector<SiteKnowledge> knowledge(taps.size());
    const auto study_half = [&](bool attention, const std::vector<Matrix>& state) {
      for (size_t i = 0; i < taps.size(); ++i)
        if (is_in_attention(taps[i].site) == attention) knowledge[i] = study(model, layer, taps[i], state);
    };
    study_half(true, hidden);
    std::vector<Matrix> between = hidden;
    advance_attention(model, layer, between);
    study_half(false, between);
    between.clear();
    for (size_t i = 0; i < taps.size(); ++i) solve_tap(model, layer, taps[i], std::move(knowledge[i]));
    advance_attention(model, layer, hidden);
    advance_feed_forward(model, layer, hidden);
  }

  SiteKnowledge study(const Decoder& model, int layer, Tap tap, const std::vector<Matrix>& hidden) {
    SiteKnowledge out;
    const auto linears = model.linears(layer);
    const bool wanted = std::any_of(linears.begin(), linears.end(),
                                    [&](const Linear& l) { return l.tap == tap && planned(l).on_grid(); });
    if (!wanted) return out;
    const std::string expert = tap.expert < 0 ? "" : " expert " + std::to_string(tap.expert);
    const std::string what = "layer " + std::to_string(layer) + " " + std::string(name_of(tap.site)) + expert;
    observer_.report({.stage = "calibrate", .detail = what, .done = layer, .total = plan_.config.layers});
    out.statistics = measure_tap(model, layer, tap, hidden);
    out.importance = out.statistics.mean_square();
    if (tap.expert >= 0 && tap.site == Site::ffn_in && out.statistics.visits < kFewestExpertTokens)
      observer_.warn(what + ": only " + std::to_string(out.statistics.visits) +
                     " calibration tokens take this expert; it is calibrated on all tokens of the layer");
    return out;
  }

  void solve_tap(Decoder& model, int layer, Tap tap, SiteKnowledge knowledge) {
    for (const Linear& linear : model.linears(layer)) {
      if (linear.tap != tap || !planned(linear).on_grid()) continue;
      check_interrupt();
      solve(model, linear, knowledge);
    }
  }

  void solve(Decoder& model, const Linear& linear, SiteKnowledge& knowledge) {
    const auto start = Clock::now();
    const size_t index = by_source_.at(linear.name);
    const PlannedTensor& t = plan_.tensors[index];
    TensorReport& r = begin(index);
    Matrix w = load_source(plan_, t);
    const Quantized q = choose_codes(r, t, w, knowledge);
    write(r, q, w);
    Matrix values = dequantize(q);
    r.output_error = sampled_output_error(w, values, knowledge.statistics.hessian);
    w = Matrix();
    model.replace(linear, PackedMatrix::of_matrix(put_rows_back(std::move(values), t.row_order)));
    end(r, start);
  }

  Quantized choose_codes(TensorReport& r, const PlannedTensor& t, const Matrix& w, SiteKnowledge& knowledge) {
    const Grid& grid = std::get<Grid>(t.target);
    GptqOptions options = plan_.settings.gptq;
    options.fit.importance = knowledge.importance;
    if (t.method == Method::rtn) {
      options.fit.nearest_follows = true;
      return round_to_nearest(w, grid, options.fit);
    }
    const std::pair<int64_t, int> together{window_of(grid, w.cols()), step_of(grid)};
    auto factor = knowledge.factors.find(together);
    if (factor == knowledge.factors.end()) {
      HessianFactor made = factor_hessian(knowledge.statistics.hessian, together.first, options, together.second);
      factor = knowledge.factors.emplace(together, std::move(made)).first;
    }
    r.damp = factor->second.damp;
    r.dead_columns = static_cast<int64_t>(factor->second.dead.size());
    if (factor->second.attempts > 1)
      observer_.warn(t.name + ": the Hessian could not be factored with damping " + std::to_string(options.damp) +
                     "; used " + std::to_string(r.damp));
    return gptq(w, factor->second, grid, options).quantized;
  }

  // On at most kRows rows, evenly spaced: the whole would cost as much as the solver.
  static double sampled_output_error(const Matrix& w, const Matrix& values, const Matrix& hessian) {
    constexpr int64_t kRows = 256;
    const int64_t every = std::max<int64_t>(1, w.rows() / kRows);
    const MatrixView wanted(w.data(), (w.rows() + every - 1) / every, w.cols(), every * w.cols());
    const MatrixView got(values.data(), wanted.rows, w.cols(), every * w.cols());
    return relative_output_error(wanted, got, hessian);
  }

  // ---- both
  const PlannedTensor& planned(const Linear& linear) const { return plan_.tensors[by_source_.at(linear.name)]; }

  TensorReport& begin(size_t index) {
    const PlannedTensor& t = plan_.tensors[index];
    TensorReport& r = report_.tensors[index];
    r.name = t.name;
    r.source = t.source;
    r.target = name_of(t.target);
    r.bits_per_weight = t.size() > 0 ? 8.0 * static_cast<double>(t.bytes) / static_cast<double>(t.size()) : 0;
    return r;
  }
  void write(TensorReport& r, const Quantized& q, const Matrix& w) {
    writer_.add(r.name, q);
    const Assessment a = assess(q, w);
    r.fingerprint = a.fingerprint;
    r.weight_error = a.power > 0 ? a.error / a.power : 0;
  }
  void write(TensorReport& r, std::span<const std::byte> bytes) {
    writer_.add(r.name, bytes);
    r.fingerprint = fingerprint_of(bytes);
  }
  void end(TensorReport& r, Clock::time_point start) {
    r.seconds = seconds_since(start);
    observer_.report({.stage = "quantize",
                      .detail = r.name,
                      .done = ++done_,
                      .total = static_cast<int64_t>(plan_.tensors.size()),
                      .error = r.output_error >= 0 ? r.output_error : r.weight_error});
  }

  const Plan& plan_;
  Writer& writer_;
  const Observer& observer_;
  std::map<std::string, size_t> by_source_;
  QuantizeReport report_;
  int64_t done_ = 0;
};

}  // namespace

bool QuantizeReport::lossless() const {
  return std::all_of(tensors.begin(), tensors.end(), [](const TensorReport& r) { return r.changed == 0; });
}

QuantizeReport quantize(const Plan& plan, const std::filesystem::path& output, const Observer& observer) {
  const auto start = Clock::now();
  check_room(plan, output);
  const auto writer = plan.container->create(output, plan.output, plan.settings.overwrite);
  QuantizeReport report = Pipeline(plan, *writer, observer).run();
  writer->seal();
  verify_written(plan, writer->staged(), report.tensors, observer);
  report.peak_memory_bytes = peak_memory_bytes();
  report.output_bytes = plan.output_bytes;
  report.seconds = seconds_since(start);
  add_companions(plan, output, *writer, report);
  writer->commit();
  return report;
}

}  // namespace pare
