#include "pare/grid/embed.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "pare/base/threads.h"
#include "pare/grid/families.h"

namespace pare {
namespace {

// ---- the same codes on the same windows: parameters are copied

// Whether a code means the same level, and stands in the same window, on both grids.
bool same_codes(const Grid& a, const Grid& b) {
  return std::visit(Overloaded{[](const AffineSpec& x, const AffineSpec& y) {
                                 return x.bits == y.bits && x.group == y.group && x.biased == y.biased;
                               },
                               [](const BlockSpec& x, const BlockSpec& y) { return x == y; },
                               [](const SuperBlockSpec& x, const SuperBlockSpec& y) { return x == y; },
                               [](const LatticeSpec& x, const LatticeSpec& y) { return x == y; },
                               [](const CodebookSpec& x, const CodebookSpec& y) {
                                 return x.levels == y.levels && x.group == y.group;
                               },
                               [](const auto&, const auto&) { return false; }},
                    a, b);
}

// Whether rows or windows share numbers, so that none can be set alone.
bool shares(const Grid& grid) {
  if (const auto* a = std::get_if<AffineSpec>(&grid)) return a->rows != 1;
  if (const auto* c = std::get_if<CodebookSpec>(&grid)) return c->rows != 1 || c->nested || c->global;
  return false;
}

template <class T>
void copy_columns(Plane<T>& to, const Plane<T>& from, std::span<const int64_t> columns) {
  for (int64_t w = 0; w < to.rows(); ++w)
    for (int64_t r = 0; r < to.cols(); ++r) to(w, r) = from(w, columns[static_cast<size_t>(r)]);
}
void copy_planes(Affine& to, const Affine& from, std::span<const int64_t> rows) {
  copy_columns(to.scale, from.scale, rows);
  copy_columns(to.zero, from.zero, rows);
  copy_columns(to.bias, from.bias, rows);
}
void copy_planes(Block& to, const Block& from, std::span<const int64_t> rows) {
  copy_columns(to.scale, from.scale, rows);
  copy_columns(to.min, from.min, rows);
}
void copy_planes(Lattice& to, const Lattice& from, std::span<const int64_t> rows) {
  copy_columns(to.d, from.d, rows);
  copy_columns(to.scale, from.scale, rows);
  copy_columns(to.shift, from.shift, rows);
}
void copy_planes(SuperBlock& to, const SuperBlock& from, std::span<const int64_t> rows) {
  copy_columns(to.d, from.d, rows);
  copy_columns(to.dmin, from.dmin, rows);
  copy_columns(to.scale, from.scale, rows);
  copy_columns(to.min, from.min, rows);
}
void copy_planes(Codebook& to, const Codebook& from, std::span<const int64_t> rows) {
  copy_columns(to.scale, from.scale, rows);
}

// Whether every parameter is one that the grid can store. A negative scale is, wherever its size is: solvers alone keep
// scales positive.
bool storable(const Quantized& q) {
  std::atomic<bool> good = true;
  parallel_for(q.windows(), [&](int64_t w) {
    for (int64_t r = 0; r < q.shape().rows; ++r)
      for (int i = 0; i < q.parameters(); ++i) {
        const float x = q.parameter(r, w, i).value;
        if (x != 0 && q.rounded(i, x) != x && q.rounded(i, -x) != -x) good = false;
      }
  });
  return good;
}
// Zero points outside what the target's file can hold, or other than the middle where it holds none.
bool holds_zeros(const Affine& p, const AffineSpec& to) {
  if (to.biased) return true;
  const int middle = 1 << (to.bits - 1);
  return std::all_of(p.zero.values().begin(), p.zero.values().end(),
                     [&](uint8_t z) { return to.symmetric ? z == middle : z >= to.lowest_zero; });
}

std::optional<Quantized> copied(const Quantized& from, const Grid& to, std::span<const int64_t> rows) {
  Quantized out(to, {std::ssize(rows), from.shape().cols});
  if (!same_codes(from.grid(), out.grid())) return std::nullopt;
  if (const auto* affine = std::get_if<Affine>(&from.params);
      affine && !holds_zeros(*affine, std::get<Affine>(out.params).spec))
    return std::nullopt;
  std::visit(
      [&](auto& p) {
        using Family = std::remove_reference_t<decltype(p)>;
        copy_planes(p, std::get<Family>(from.params), rows);
      },
      out.params);
  parallel_for(out.shape().rows, [&](int64_t r) {
    std::copy_n(from.codes.row(rows[static_cast<size_t>(r)]), out.shape().cols, out.codes.row(r));
  });
  out.order = from.order;
  if (!storable(out)) return std::nullopt;
  return out;
}

// ---- any two grids: a window's parameters are tried until every value is met

// One row of the source in the columns' original places.
struct SourceRow {
  const Quantized& q;
  int64_t row;
  std::span<const int32_t> place;  // where the column is stored
  std::span<const float> values;
};

// Scales and offsets that the source itself uses in some columns.
class Candidates {
 public:
  Candidates(const SourceRow& source, int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      const int64_t at = source.place[static_cast<size_t>(c)];
      const float zero = source.q.value(source.row, at, 0), step = source.q.value(source.row, at, 1) - zero;
      add(step, zero);
      if (source.q.parameters() <= 2) add(source.q.parameter(source.row, at / source.q.window(), 0).value, zero);
    }
    const auto [lowest, highest] = std::minmax_element(source.values.begin() + first, source.values.begin() + last);
    lowest_ = *lowest;
    highest_ = *highest;
  }
  struct Pair {
    float scale, offset;  // the value of code 0
  };
  // With the source's own offset, and so that code 0 meets the extreme value.
  std::vector<Pair> all() const {
    std::vector<Pair> out;
    for (const Pair& p : pairs_)
      for (const float sign : {1.0f, -1.0f}) {
        if (sign > 0) out.push_back({p.scale, p.offset});
        out.push_back({sign * p.scale, sign * p.scale > 0 ? lowest_ : highest_});
      }
    return out;
  }

 private:
  void add(float scale, float offset) {
    constexpr size_t kMost = 8;
    const auto same = [&](const Pair& p) { return p.scale == scale; };
    if (pairs_.size() < kMost && std::none_of(pairs_.begin(), pairs_.end(), same)) pairs_.push_back({scale, offset});
  }
  std::vector<Pair> pairs_;
  float lowest_ = 0, highest_ = 0;
};

// Moves the window's second parameter so that code 0 stands for `offset`: values are linear in it.
void shift(Quantized& q, int64_t row, int64_t window, float offset) {
  const int64_t col = window * q.window();
  q.set_parameter(row, window, 1, q.rounded(1, std::max(0.0f, q.parameter(row, window, 1).lowest)));
  const float low = q.parameter(row, window, 1).value, at_low = q.value(row, col, 0);
  q.set_parameter(row, window, 1, q.rounded(1, low + 1));
  const float step = q.parameter(row, window, 1).value - low, slope = (q.value(row, col, 0) - at_low) / step;
  const float wanted = low + (offset - at_low) / slope;
  q.set_parameter(row, window, 1, q.rounded(1, std::isfinite(wanted) ? wanted : low));
}

struct Miss {
  double error = 0;
  int64_t changed = 0;
};
// Nearest codes for the window's parameters as they are; stops when it is worse than `limit`.
Miss choose(Quantized& q, const SourceRow& source, int64_t to_row, int64_t first, int64_t last, double limit) {
  Miss miss;
  for (int64_t c = first; c < last && miss.error <= limit; ++c) {
    const float wanted = source.values[static_cast<size_t>(c)];
    const uint8_t code = q.nearest(to_row, c, wanted);
    q.set(to_row, c, code);
    const double d = static_cast<double>(q.value(to_row, c, code)) - wanted;
    miss.error += d * d;
    miss.changed += d != 0 ? 1 : 0;
  }
  return miss;
}

// A scale as the file stores it: solvers keep the scales of some families positive, files need not.
float either_sign(const Quantized& q, float scale) {
  const float x = q.rounded(0, scale);
  return scale < 0 && x > scale ? -q.rounded(0, -scale) : x;
}

// Of all candidates the first that changes nothing, else the one of least error.
int64_t embed_window(Quantized& out, int64_t row, int64_t window, const SourceRow& source) {
  const int64_t first = window * out.window(), last = first + out.window();
  const auto apply = [&](const Candidates::Pair& p) {
    out.set_parameter(row, window, 0, either_sign(out, p.scale));
    if (out.parameters() == 2) shift(out, row, window, p.offset);
  };
  const std::vector<Candidates::Pair> candidates = Candidates(source, first, last).all();
  Miss best{std::numeric_limits<double>::infinity(), last - first};
  const Candidates::Pair* chosen = nullptr;
  for (const Candidates::Pair& p : candidates) {
    apply(p);
    const Miss miss = choose(out, source, row, first, last, best.error);
    if (chosen && miss.error >= best.error) continue;
    best = miss;
    chosen = &p;
    if (miss.changed == 0) return 0;
  }
  apply(*chosen);
  return choose(out, source, row, first, last, std::numeric_limits<double>::infinity()).changed;
}

// Grids with more parameters than a scale and an offset are fitted anew.
void fit_anew(Quantized& out, const Matrix& values) {
  FitHow how;
  how.nearest_follows = true;
  out.prepare(values);
  for (int64_t w = 0; w < out.windows(); ++w) out.fit(w, values, how);
  parallel_for((values.rows() + kLanes - 1) / kLanes, [&](int64_t i) {
    std::vector<float> x(static_cast<size_t>(out.window() * kLanes));
    for (int64_t w = 0; w < out.windows(); ++w) {
      Strip strip{x.data(), i * kLanes, static_cast<int>(std::min<int64_t>(kLanes, values.rows() - i * kLanes)),
                  w * out.window(), (w + 1) * out.window()};
      load_strip(values, strip);
      out.round(strip);
    }
  });
}

Matrix values_of_rows(const Quantized& from, std::span<const int64_t> rows) {
  Matrix out(std::ssize(rows), from.shape().cols);
  parallel_for(out.rows(), [&](int64_t r) {
    const int64_t row = rows[static_cast<size_t>(r)];
    dequantize_rows(from, row, row + 1, out.row(r));
  });
  return out;
}

std::vector<int32_t> places(const Quantized& from) {
  std::vector<int32_t> out(static_cast<size_t>(from.shape().cols));
  std::iota(out.begin(), out.end(), 0);
  for (size_t c = 0; c < from.order.size(); ++c) out[static_cast<size_t>(from.order[c])] = static_cast<int32_t>(c);
  return out;
}

}  // namespace

int64_t count_changed(const Quantized& q, MatrixView wanted) {
  std::atomic<int64_t> changed = 0;
  parallel_for(wanted.rows, [&](int64_t r) {
    std::vector<float> values(static_cast<size_t>(wanted.cols));
    dequantize_rows(q, r, r + 1, values.data());
    int64_t here = 0;
    for (int64_t c = 0; c < wanted.cols; ++c) here += values[static_cast<size_t>(c)] == wanted(r, c) ? 0 : 1;
    changed += here;
  });
  return changed;
}

Embedded embed(const Quantized& from, const Grid& to, std::span<const int64_t> rows, bool keep_order) {
  std::vector<int64_t> all;
  if (rows.empty()) {
    all.resize(static_cast<size_t>(from.shape().rows));
    std::iota(all.begin(), all.end(), int64_t{0});
    rows = all;
  }
  const bool whole = rows.size() == static_cast<size_t>(from.shape().rows) && std::is_sorted(rows.begin(), rows.end());
  Embedded out{Quantized(to, {std::ssize(rows), from.shape().cols})};
  if (from.order.empty() || keep_order) {
    if (whole && from.grid() == out.q.grid()) return {from, 0};
    if (!shares(to))
      if (auto same = copied(from, to, rows)) return {std::move(*same), 0};
  }
  const Matrix values = values_of_rows(from, rows);
  if (out.q.parameters() > 2 || out.q.step() > 1 || shares(to)) {
    fit_anew(out.q, values);
    out.changed = count_changed(out.q, values);
    return out;
  }
  const std::vector<int32_t> place = places(from);
  std::atomic<int64_t> changed = 0;
  parallel_for(values.rows(), [&](int64_t r) {
    const SourceRow source{
        from, rows[static_cast<size_t>(r)], place, {values.row(r), static_cast<size_t>(values.cols())}};
    int64_t here = 0;
    for (int64_t w = 0; w < out.q.windows(); ++w) here += embed_window(out.q, r, w, source);
    changed += here;
  });
  out.changed = changed;
  return out;
}

}  // namespace pare
