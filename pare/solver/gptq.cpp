// GPTQ on any grid. Columns are rounded one after another; with U as in HessianFactor,
//
//     e_c = (w_c - value_c) / U_cc          what rounding column c lost
//     w_k = w_k - e_c U_ck                  for every later column k
//
// Only the columns of a small group see e_c at once. Those beyond it see it with the rest of the group, those beyond
// the block with the rest of the block, those beyond the panel with the rest of the panel: the last two are products of
// matrices. Nothing is rounded, and no window fitted, before it has seen all errors.
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

// A matrix on its way through the columns. A position is a column's turn; Quantized knows columns by place. They differ
// where the order of turns is not stored.
class Feedback {
 public:
  Feedback(Matrix w, const HessianFactor& factor, const Grid& grid, const GptqOptions& options);
  GptqResult run();

 private:
  void fit_all();
  void fit(Range window);
  void round(Range columns, int64_t end);
  double round_strip(int64_t first_row, Range columns, int64_t end);
  void spread(Range from, int64_t end);

  int64_t place(int64_t position) const { return place_.empty() ? position : place_[static_cast<size_t>(position)]; }
  std::vector<int64_t> window_starts() const;
  std::vector<Range> cut(Range range, int64_t size) const;
  std::vector<Range> windows(Range range) const;

  const Matrix& u_;
  const GptqOptions& options_;
  Quantized q_;
  FitHow how_;
  std::vector<float> importance_;  // by place
  std::vector<int32_t> place_;     // position -> place; empty: the same
  std::vector<int64_t> starts_;    // positions that begin a window to be fitted, and the end
  Matrix weights_;                 // by position; of columns to come, with all errors so far fed back
  Matrix by_place_;                // where fit() finds the weights if positions are not places
  Matrix error_;                   // of the present panel
  int64_t panel_ = 0;              // its first position
  std::vector<double> loss_;       // per strip
};

Feedback::Feedback(Matrix w, const HessianFactor& factor, const Grid& grid, const GptqOptions& options)
    : u_(factor.upper), options_(options), q_(grid, w.shape()), how_(options.fit) {
  if (u_.rows() != w.cols()) throw std::logic_error("gptq: Hessian and weights differ in columns");
  if (factor.order.empty() != (options.order == ColumnOrder::natural))
    throw std::logic_error("gptq: the Hessian was factored in another order");
  require_finite_weights(w);
  for (int64_t r = 0; r < w.rows(); ++r)
    for (const int32_t c : factor.dead) w(r, c) = 0;

  const std::span<const float> importance = how_.importance.empty() ? factor.diagonal : how_.importance;
  importance_.assign(importance.begin(), importance.end());
  how_.nearest_follows = false;
  if (options.order == ColumnOrder::natural) {
    weights_ = std::move(w);
  } else {
    weights_ = take_columns(w, factor.order);
    if (options.order == ColumnOrder::stored && !options.static_groups) {
      q_.order = factor.order;
      for (size_t p = 0; p < importance_.size(); ++p) importance_[p] = importance[static_cast<size_t>(factor.order[p])];
    } else {
      place_ = factor.order;
      by_place_ = std::move(w);
    }
  }
  how_.importance = importance_;
  starts_ = window_starts();
  loss_.resize(static_cast<size_t>((weights_.rows() + kLanes - 1) / kLanes));
}

std::vector<int64_t> Feedback::window_starts() const {
  const int64_t cols = weights_.cols();
  std::vector<int64_t> starts;
  if (options_.static_groups) {
    starts = {0};
  } else {
    for (int64_t p = 0; p < cols; ++p)
      if (p == 0 || place(p) / q_.window() != place(p - 1) / q_.window()) starts.push_back(p);
    if (std::ssize(starts) != q_.windows()) throw std::logic_error("gptq: the order does not keep windows whole");
  }
  starts.push_back(cols);
  return starts;
}

// Cuts a range into pieces of at most `size` positions. A piece in which a window begins ends where a window ends:
// a window's columns are then all up to date when it is fitted.
std::vector<Range> Feedback::cut(Range range, int64_t size) const {
  const int64_t whole = std::max<int64_t>(1, size / q_.step()) * q_.step();
  std::vector<Range> pieces;
  for (int64_t first = range.first; first < range.last;) {
    int64_t last = std::min(first + whole, range.last);
    const int64_t start = *std::prev(std::ranges::upper_bound(starts_, last));
    if (start > first) last = start;
    pieces.push_back({first, last});
    first = last;
  }
  return pieces;
}

// Cuts a range where windows begin.
std::vector<Range> Feedback::windows(Range range) const {
  std::vector<Range> pieces;
  for (int64_t first = range.first; first < range.last;) {
    const int64_t last = std::min(*std::ranges::upper_bound(starts_, first), range.last);
    pieces.push_back({first, last});
    first = last;
  }
  return pieces;
}

void Feedback::fit_all() {
  for (int64_t window = 0; window < q_.windows(); ++window) q_.fit(window, place_.empty() ? weights_ : by_place_, how_);
}

// Fits the window that begins with this range, if one does.
void Feedback::fit(Range range) {
  const auto start = std::ranges::lower_bound(starts_, range.first);
  if (options_.static_groups || *start != range.first) return;
  const Range window{range.first, *std::next(start)};
  if (!place_.empty())
    parallel_for(weights_.rows(), [&](int64_t r) {
      for (int64_t p = window.first; p < window.last; ++p) by_place_(r, place(p)) = weights_(r, p);
    });
  q_.fit(place(window.first) / q_.window(), place_.empty() ? weights_ : by_place_, how_);
}

// Rounds columns one after another, feeding each one's error back into the later ones before `end`.
void Feedback::round(Range columns, int64_t end) {
  parallel_for(std::ssize(loss_),
               [&](int64_t strip) { loss_[static_cast<size_t>(strip)] += round_strip(strip * kLanes, columns, end); });
}

double Feedback::round_strip(int64_t first_row, Range columns, int64_t end) {
  const int rows = static_cast<int>(std::min<int64_t>(kLanes, weights_.rows() - first_row));
  const int step = q_.step();
  std::vector<Lanes> live(static_cast<size_t>(end - columns.first)), error(live.size()), wanted;
  const auto at = [&](std::vector<Lanes>& lanes, int64_t p) { return lanes.data() + (p - columns.first); };

  Strip strip{live.front().v, first_row, rows, columns.first, end};
  load_strip(weights_, strip);
  for (const Range group : cut(columns, kGroup)) {
    for (int64_t p = group.first; p < group.last; p += step) {
      wanted.assign(at(live, p), at(live, p + step));
      q_.round({at(live, p)->v, first_row, rows, place(p), place(p) + step});
      for (int64_t i = 0; i < step; ++i) {
        const float* u = u_.row(p + i) + p;
        Lanes* e = at(error, p + i);
        scaled_error(wanted[static_cast<size_t>(i)], *at(live, p + i), u[i], *e);
        feed_back(e, 1, u + i + 1, 0, step - i - 1, wanted.data() + i + 1);
        feed_back(e, 1, u + step, 0, group.last - p - step, at(live, p + step));
      }
    }
    feed_back(at(error, group.first), group.last - group.first, u_.row(group.first) + group.last, u_.cols(),
              end - group.last, at(live, group.last));
  }
  store_strip({at(error, columns.first)->v, first_row, rows, columns.first - panel_, columns.last - panel_},
              error_.data(), error_.cols());
  if (columns.last < end)
    store_strip({at(live, columns.last)->v, first_row, rows, columns.last, end}, weights_.data(), weights_.cols());
  return sum_of_squares({error.data(), static_cast<size_t>(columns.last - columns.first)}, rows);
}

// Feeds the errors of columns `from` back into all columns between them and `end`.
void Feedback::spread(Range from, int64_t end) {
  const MatrixView error = MatrixView(error_).cols_between(from.first - panel_, from.last - panel_);
  const MatrixView u = MatrixView(u_).rows_between(from.first, from.last).cols_between(from.last, end);
  multiply_add(-1.0f, error, u, weights_.data() + from.last, weights_.cols());
}

GptqResult Feedback::run() {
  const int64_t cols = weights_.cols();
  if (options_.static_groups) fit_all();
  error_ = Matrix(weights_.rows(), std::min(cols, std::max<int64_t>(kBlocksPerPanel * options_.block, q_.step())));
  for (const Range panel : cut({0, cols}, error_.cols())) {
    panel_ = panel.first;
    for (const Range block : cut(panel, options_.block)) {
      for (const Range window : windows(block)) {
        fit(window);
        round(window, block.last);
      }
      spread(block, panel.last);
    }
    spread(panel, cols);
  }
  return {std::move(q_), std::accumulate(loss_.begin(), loss_.end(), 0.0)};
}

}  // namespace

GptqResult gptq(Matrix w, const HessianFactor& factor, const Grid& grid, const GptqOptions& options) {
  return Feedback(std::move(w), factor, grid, options).run();
}

}  // namespace pare
