// GPTQ on any grid. Columns are rounded one after another, each as the weight it should be once the errors of the
// earlier ones are made good: with H = R Rᵀ and F_ik = R_ik / R_kk (HessianFactor),
//
//     d_i = w_i - value_i                   what quantization took from column i of the original weights
//     x_k = w_k + Σ_{i<k} d_i F_ik          what column k is rounded from
//
// Far columns hand their errors to a panel, then to a block of it, by products of matrices; only a small group of
// columns sees each error at once. Nothing is rounded, and no window fitted, before it has seen all errors.
#include <algorithm>
#include <array>
#include <numeric>
#include <stdexcept>

#include "pare/base/threads.h"
#include "pare/solver/checks.h"
#include "pare/solver/feedback.h"
#include "pare/solver/solver.h"
#include "pare/tensor/linalg.h"

namespace pare {
namespace {

constexpr int64_t kBlocksPerPanel = 4;
constexpr int64_t kGroup = 8;

struct Range {
  int64_t first, last;
};

Matrix take_columns(MatrixView m, std::span<const int32_t> order) {
  Matrix out(m.rows, m.cols);
  parallel_for(m.rows, [&](int64_t r) {
    for (size_t p = 0; p < order.size(); ++p) out.row(r)[p] = m(r, order[p]);
  });
  return out;
}

double sum_of_squares(std::span<const Lanes> columns, int rows) {
  std::array<double, kLanes> sums{};
  for (const Lanes& column : columns)
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += static_cast<double>(column.v[lane]) * column.v[lane];
  return std::accumulate(sums.begin(), sums.begin() + rows, 0.0);
}

// Of one thread, by position: what columns are rounded from, the original weights and then d, what is stored, what the
// loss adds up; and what fit_window needs.
struct Scratch {
  std::vector<Lanes> x, original, stored, lost, window;
};

// A matrix on its way through the columns. A position is a column's turn; Quantized knows columns by place. They differ
// where the order of turns is not stored.
class Feedback {
 public:
  Feedback(Matrix w, const HessianFactor& factor, const Grid& grid, const GptqOptions& options);
  GptqResult run();

 private:
  void fit_originals(const Matrix& w);
  std::vector<float> importance_in_steps() const;
  void wanted_of_step(int64_t p, const Lanes* x, const Lanes* original, Lanes* wanted) const;
  void collect(Range columns, Range from);
  void round(Range block);
  double round_strip(int64_t first_row, Range block);
  template <class Stored>
  void feed_forward(Range columns, Lanes* x, Lanes* original, Stored&& stored, Lanes* lost) const;
  void fit_window(int64_t first, const Lanes* x, const Lanes* original, Strip strip, std::vector<Lanes>& buffer);

  int64_t place(int64_t position) const { return place_.empty() ? position : place_[static_cast<size_t>(position)]; }
  bool fits_on_the_way() const;
  std::vector<Range> cut(Range range, int64_t size) const;
  std::vector<Range> groups(Range block) const;

  const HessianFactor& factor_;
  const GptqOptions& options_;
  Quantized q_;
  FitHow how_;
  std::vector<float> importance_;          // by place
  std::vector<float> importance_in_step_;  // by position, where columns are rounded together
  std::vector<int32_t> place_;             // position -> place; empty: the same
  bool on_the_way_ = false;                // windows are fitted when their turn comes, at multiples of window()
  Matrix weights_;                         // by position: the original weights, and d of columns that are rounded
  Matrix panel_;                           // x of the present panel
  int64_t panel_first_ = 0;                // its first position
  std::vector<double> loss_;               // per strip
};

Feedback::Feedback(Matrix w, const HessianFactor& factor, const Grid& grid, const GptqOptions& options)
    : factor_(factor), options_(options), q_(grid, w.shape()), how_(options.fit) {
  if (factor.feedback.rows() != w.cols()) throw std::logic_error("gptq: Hessian and weights differ in columns");
  if (factor.order.empty() != (options.order == ColumnOrder::natural))
    throw std::logic_error("gptq: the Hessian was factored in another order");
  require_finite_weights(w);
  for (int64_t r = 0; r < w.rows(); ++r)
    for (const int32_t c : factor.dead) w(r, c) = 0;

  const std::span<const float> importance = how_.importance.empty() ? factor.diagonal : how_.importance;
  importance_.assign(importance.begin(), importance.end());
  how_.nearest_follows = false;
  how_.importance = importance_;
  if (options.order == ColumnOrder::stored && !options.static_groups) {
    q_.order = factor.order;
    for (size_t p = 0; p < importance_.size(); ++p) importance_[p] = importance[static_cast<size_t>(factor.order[p])];
  } else {
    place_ = factor.order;
  }
  importance_in_step_ = importance_in_steps();
  q_.prepare(q_.order.empty() ? w : take_columns(w, q_.order));
  on_the_way_ = fits_on_the_way();
  if (!on_the_way_) fit_originals(w);
  weights_ = factor.order.empty() ? std::move(w) : take_columns(w, factor.order);
  loss_.resize(static_cast<size_t>((weights_.rows() + kLanes - 1) / kLanes));
}

// False where all windows are fitted to the original weights: when asked for, and when there is only one window.
bool Feedback::fits_on_the_way() const {
  if (options_.static_groups || q_.windows() == 1) return false;
  const int64_t window = q_.window();
  for (int64_t p = 0; p < q_.shape().cols; ++p)
    if (place(p) / window != place(p / window * window) / window)
      throw std::logic_error("gptq: the order does not keep windows whole");
  return true;
}

void Feedback::fit_originals(const Matrix& w) {
  for (int64_t window = 0; window < q_.windows(); ++window)
    q_.fit(window, q_.order.empty() ? w : take_columns(w, q_.order), how_);
}

// Cuts a range into pieces of whole windows, or steps where no windows are to be fitted, at most `size` positions each
// unless one alone has more.
std::vector<Range> Feedback::cut(Range range, int64_t size) const {
  const int64_t unit = on_the_way_ ? q_.window() : q_.step();
  const int64_t whole = std::max<int64_t>(1, size / unit) * unit;
  std::vector<Range> pieces;
  for (int64_t first = range.first; first < range.last; first += whole)
    pieces.push_back({first, std::min(first + whole, range.last)});
  return pieces;
}

// Cuts a block into the columns that see each other's errors at once, where windows begin and elsewhere.
std::vector<Range> Feedback::groups(Range block) const {
  const int64_t size = std::max<int64_t>(1, kGroup / q_.step()) * q_.step();
  std::vector<Range> pieces;
  for (int64_t first = block.first; first < block.last; first = pieces.back().last) {
    int64_t last = std::min(first + size, block.last);
    if (on_the_way_) last = std::min(last, (first / q_.window() + 1) * q_.window());
    pieces.push_back({first, last});
  }
  return pieces;
}

GptqResult Feedback::run() {
  for (const Range panel : cut({0, weights_.cols()}, kBlocksPerPanel * options_.block)) {
    panel_ = copy_of(MatrixView(weights_).cols_between(panel.first, panel.last));
    panel_first_ = panel.first;
    collect(panel, {0, panel.first});
    for (const Range block : cut(panel, options_.block)) {
      collect(block, {panel.first, block.first});
      round(block);
    }
  }
  return {std::move(q_), std::accumulate(loss_.begin(), loss_.end(), 0.0)};
}

// Adds to x of these columns what the errors of columns `from` ask of them.
void Feedback::collect(Range columns, Range from) {
  const MatrixView errors = MatrixView(weights_).cols_between(from.first, from.last);
  const MatrixView f = MatrixView(factor_.feedback).rows_between(from.first, from.last);
  multiply_add(1.0f, errors, f.cols_between(columns.first, columns.last),
               panel_.data() + (columns.first - panel_first_), panel_.cols());
}

// Rounds columns one after another, feeding each one's error forward to the later ones.
void Feedback::round(Range block) {
  parallel_for(std::ssize(loss_),
               [&](int64_t strip) { loss_[static_cast<size_t>(strip)] += round_strip(strip * kLanes, block); });
}

double Feedback::round_strip(int64_t first_row, Range block) {
  const int rows = static_cast<int>(std::min<int64_t>(kLanes, weights_.rows() - first_row));
  thread_local Scratch buffers;
  auto& [x, original, stored, lost, window] = buffers;
  for (auto* lanes : {&x, &original, &stored, &lost}) lanes->resize(static_cast<size_t>(block.last - block.first));
  const auto at = [&](int64_t p) { return static_cast<size_t>(p - block.first); };

  Strip from_panel{x.front().v, first_row, rows, block.first - panel_first_, block.last - panel_first_};
  Strip from_weights{original.front().v, first_row, rows, block.first, block.last};
  load_strip(panel_, from_panel);
  load_strip(weights_, from_weights);
  feed_forward(
      block, x.data(), original.data(),
      [&](int64_t p) {
        if (on_the_way_ && p % q_.window() == 0)
          fit_window(p, &x[at(p)], &original[at(p)], {nullptr, first_row, rows}, window);
        Lanes* step = &stored[at(p)];
        wanted_of_step(p, &x[at(p)], &original[at(p)], step);
        q_.round(
            {step->v, first_row, rows, place(p), place(p) + q_.step(), &importance_in_step_[static_cast<size_t>(p)]});
        return step;
      },
      lost.data());
  store_strip(from_weights, weights_.data(), weights_.cols());
  return sum_of_squares(lost, rows);
}

// What a step's columns are rounded from together: each as if those before it in the step were stored exactly.
void Feedback::wanted_of_step(int64_t p, const Lanes* x, const Lanes* original, Lanes* wanted) const {
  const int step = q_.step();
  std::copy_n(x, step, wanted);
  for (int i = 0; i + 1 < step; ++i) {
    Lanes difference;
    scaled_difference(original[i], wanted[i], 1, difference);
    feed_back(&difference, 1, factor_.feedback.row(p + i) + p + i + 1, 0, step - i - 1, wanted + i + 1);
  }
}

// How much an error of each column counts among those of its step, by position: with U the step's block of R, an error
// e costs e U Uᵀ eᵀ; of that, the diagonal.
std::vector<float> Feedback::importance_in_steps() const {
  const int64_t cols = q_.shape().cols, step = q_.step();
  std::vector<float> importance(static_cast<size_t>(cols), 0.0f);
  for (int64_t p = 0; p < cols; ++p)
    for (int64_t k = p; k < (p / step + 1) * step; ++k) {
      const float r = (k == p ? 1.0f : factor_.feedback(p, k)) * factor_.scale[static_cast<size_t>(k)];
      importance[static_cast<size_t>(p)] += r * r;
    }
  return importance;
}

// Takes columns in turn. stored(p) says what becomes of the step of columns that begins at p, from its `x`, which then
// holds all that earlier columns feed forward. `original` becomes what storing took from each.
template <class Stored>
void Feedback::feed_forward(Range columns, Lanes* x, Lanes* original, Stored&& stored, Lanes* lost) const {
  const int64_t step = q_.step(), stride = factor_.feedback.cols();
  const auto f = [&](int64_t from, int64_t to) { return factor_.feedback.row(from) + to; };
  for (const Range group : groups(columns)) {
    for (int64_t p = group.first; p < group.last; p += step) {
      const Lanes* values = stored(p);
      for (int64_t i = p; i < p + step; ++i) {
        const int64_t at = i - columns.first;
        if (lost) scaled_difference(x[at], values[i - p], factor_.scale[static_cast<size_t>(i)], lost[at]);
        scaled_difference(original[at], values[i - p], 1, original[at]);
        feed_back(original + at, 1, f(i, i + 1), stride, group.last - i - 1, x + at + 1);
      }
    }
    feed_back(original + (group.first - columns.first), group.last - group.first, f(group.first, group.last), stride,
              columns.last - group.last, x + (group.last - columns.first));
  }
}

// Fits the window that begins at a position to what its columns would be rounded from if those before them in the
// window were stored exactly.
void Feedback::fit_window(int64_t first, const Lanes* x, const Lanes* original, Strip strip,
                          std::vector<Lanes>& buffer) {
  const int64_t columns = q_.window();
  buffer.resize(static_cast<size_t>(3 * columns));
  Lanes *wanted = buffer.data(), *error = wanted + columns, *by_place = error + columns;
  std::copy_n(x, columns, wanted);
  std::copy_n(original, columns, error);
  feed_forward(
      {first, first + columns}, wanted, error, [&](int64_t p) { return wanted + (p - first); }, nullptr);

  strip.first = place(first) / columns * columns;
  strip.last = strip.first + columns;
  strip.values = by_place->v;
  for (int64_t i = 0; i < columns; ++i) by_place[place(first + i) - strip.first] = wanted[i];
  q_.fit(strip, how_);
}

}  // namespace

GptqResult gptq(Matrix w, const HessianFactor& factor, const Grid& grid, const GptqOptions& options) {
  return Feedback(std::move(w), factor, grid, options).run();
}

}  // namespace pare
