#include "pare/grid/quantized.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "pare/base/threads.h"
#include "pare/grid/families.h"
#include "pare/grid/lanes.h"

namespace pare {
namespace {

uint8_t nearest_code(const Line& line, int top, float x) {
  const float inverse = line.scale == 0 ? 0 : 1 / line.scale;
  const float wanted = (x + line.min) * inverse;
  if (line.table) return static_cast<uint8_t>(line.table->nearest(wanted));
  const float lowest = -line.zero, highest = static_cast<float>(top) - line.zero;
  const float level = wanted > lowest ? (wanted < highest ? wanted : highest) : lowest;  // NaN: the lowest
  return static_cast<uint8_t>(std::nearbyint(level) + line.zero);
}

// Whether the codes of a step have the shift that their run has.
bool shift_fits(const Lattice& p, int64_t row, int64_t first, const uint8_t* together) {
  const LatticeTraits& t = traits(p.spec);
  return !t.shift_per_run || (minus_of(t, together, 1) == 0) == (p.shift(first / t.sub, row) != 0);
}

uint8_t nearest_beside(const Lattice& p, const Line& line, const uint8_t* step_codes, int64_t row, int64_t col,
                       float x) {
  const LatticeTraits& t = traits(p.spec);
  const int64_t at = col % t.step;
  uint8_t together[8];
  std::copy_n(step_codes, t.step, together);
  uint8_t best = together[at];
  float least = std::abs(x - line.value(best));
  for (int code = 0; code < t.table().count; ++code) {
    together[at] = static_cast<uint8_t>(code);
    const float miss = std::abs(x - line.value(together[at]));
    if (!(miss < least) || !holds(t, together) || !shift_fits(p, row, col - at, together)) continue;
    best = together[at];
    least = miss;
  }
  return best;
}

int nearest_ways(const Lattice& p, const Line& line, int64_t row, int64_t col, std::span<const float> values,
                 std::span<uint8_t> out) {
  const LatticeTraits& t = traits(p.spec);
  const float inverse = line.scale == 0 ? 0 : 1 / line.scale;
  float x[8];
  for (size_t j = 0; j < values.size(); ++j) x[j] = values[j] * inverse;
  const int shift = t.shift_per_run ? (p.shift(col / t.sub, row) ? 1 : -1) : 0;
  return nearest_points(t, {x, values.size()}, shift, static_cast<int>(std::ssize(out)) / t.step, out.data());
}

// ---- fits

// Buffers of one thread: a window of one strip and what its weights count.
struct Scratch {
  std::vector<lanes::Lanes> x, importance;
  void resize(int64_t columns) {
    if (std::ssize(x) >= columns) return;
    x.resize(static_cast<size_t>(columns));
    importance.resize(static_cast<size_t>(columns));
  }
};

Scratch& scratch(int64_t columns) {
  thread_local Scratch buffers;
  buffers.resize(columns);
  return buffers;
}

// buffers.x holds the window's weights, lane = row.
void fit_loaded(Params& params, int64_t window, const Strip& strip, const FitHow& how, Scratch& buffers) {
  const int64_t columns = strip.last - strip.first;
  lanes::sanitize(buffers.x.data(), columns);
  const bool lattice = std::holds_alternative<Lattice>(params);
  if (how.search == Search::error) {
    const float* importance = how.importance.empty() ? nullptr : how.importance.data() + strip.first;
    const bool larger = how.nearest_follows && (lattice || std::holds_alternative<SuperBlock>(params));
    lanes::weigh(buffers.x.data(), columns, importance, larger, buffers.importance.data());
  } else if (lattice) {  // points are found by weighted distance even for a range
    lanes::weigh(buffers.x.data(), columns, nullptr, false, buffers.importance.data());
  }
  const lanes::Columns c{buffers.x.data(), buffers.importance.data(), columns};
  fit_params(params, window, strip, c, how.search);
}

// Waking threads costs more than fitting a small window, above all on a machine that is busy with something else.
bool worth_threads(int64_t weights, Search search) {
  return weights * (search == Search::error ? 16 : 1) >= int64_t{1} << 15;
}

}  // namespace

// ---- Quantized

Quantized::Quantized(const Grid& grid, Shape shape) {
  check_shape(grid, shape, "");
  params = make_params(grid, shape);
  codes = Plane<uint8_t>(shape.rows, shape.cols);
}

Grid Quantized::grid() const {
  return std::visit([](const auto& p) { return Grid(p.spec); }, params);
}
int64_t Quantized::window() const { return window_of(grid(), shape().cols); }
int64_t Quantized::windows() const { return shape().cols / window(); }
int Quantized::step() const { return step_of(grid()); }

void Quantized::fit(int64_t window_index, MatrixView w, const FitHow& how) {
  assert(w.shape() == shape() && window_index < windows());
  assert(how.importance.empty() || std::ssize(how.importance) == w.cols);
  const int64_t columns = window(), first = window_index * columns, strips = (w.rows + kLanes - 1) / kLanes;
  const auto fit_strip = [&](int64_t i) {
    Scratch& buffers = scratch(columns);
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, w.rows - i * kLanes));
    Strip strip{buffers.x.front().v, i * kLanes, rows, first, first + columns};
    load_strip(w, strip);
    fit_loaded(params, window_index, strip, how, buffers);
  };
  if (worth_threads(w.rows * columns, how.search))
    parallel_for(strips, fit_strip);
  else
    for (int64_t i = 0; i < strips; ++i) fit_strip(i);
}

void Quantized::fit(const Strip& strip, const FitHow& how) {
  const int64_t columns = window();
  assert(strip.last - strip.first == columns && strip.first % columns == 0);
  assert(how.importance.empty() || std::ssize(how.importance) == shape().cols);
  Scratch& buffers = scratch(columns);
  std::copy_n(strip.values, columns * kLanes, buffers.x.front().v);
  fit_loaded(params, strip.first / columns, strip, how, buffers);
}

void Quantized::round(const Strip& strip) {
  const auto* lattice = std::get_if<Lattice>(&params);
  assert(strip.first % step() == 0 && strip.last % step() == 0);
  const int64_t shared = line_columns(params);
  const int top = codes_of(grid()) - 1;
  const LevelTable* table = table_of(grid());
  for (int64_t col = strip.first; col < strip.last;) {
    const int64_t end = std::min(strip.last, (col / shared + 1) * shared);
    lanes::LineLanes line{};
    gather_lines(params, strip.first_row, strip.rows, col, line);
    const lanes::StripPart part{strip.values + (col - strip.first) * kLanes, end - col, strip.rows,
                                codes.row(strip.first_row) + col, codes.cols()};
    if (lattice)
      lanes::round_to_lattice(line, traits(lattice->spec),
                              strip.importance ? strip.importance + (col - strip.first) : nullptr, part);
    else if (table)
      lanes::round_to_table(line, *table, part);
    else
      lanes::round(line, top, part);
    col = end;
  }
}

uint8_t Quantized::nearest(int64_t row, int64_t col, float x) const {
  const Line line = line_at(params, row, col);
  const auto* lattice = std::get_if<Lattice>(&params);
  if (!lattice) return nearest_code(line, codes_of(grid()) - 1, x);
  return nearest_beside(*lattice, line, codes.row(row) + col / step() * step(), row, col, x);
}

float Quantized::value(int64_t row, int64_t col, uint8_t code) const { return line_at(params, row, col).value(code); }

int Quantized::candidates(int64_t row, int64_t col, std::span<const float> values, std::span<uint8_t> out) const {
  assert(std::ssize(values) == step());
  if (const auto* lattice = std::get_if<Lattice>(&params))
    return nearest_ways(*lattice, line_at(params, row, col), row, col, values, out);
  const Line line = line_at(params, row, col);
  const int top = codes_of(grid()) - 1, count = std::min(static_cast<int>(out.size()), top + 1);
  const auto miss = [&](int code) { return std::abs(values[0] - line.value(static_cast<uint8_t>(code))); };
  int below = nearest_code(line, top, values[0]), above = below + 1;  // values are ordered along the codes
  for (int i = 0; i < count; ++i) {
    const bool take_below = below >= 0 && (above > top || miss(below) <= miss(above));
    out[static_cast<size_t>(i)] = static_cast<uint8_t>(take_below ? below-- : above++);
  }
  return count;
}

// ---- values

void dequantize_rows(const Quantized& q, int64_t first, int64_t last, float* out) {
  const int64_t cols = q.shape().cols, shared = line_columns(q.params);
  for (int64_t row = first; row < last; ++row, out += cols) {
    const uint8_t* codes = q.codes.row(row);
    for (int64_t col = 0; col < cols; col += shared) {
      const Line line = line_at(q.params, row, col);
      const int64_t end = std::min(cols, col + shared);
      if (!q.order.empty())
        for (int64_t c = col; c < end; ++c) out[q.order[static_cast<size_t>(c)]] = line.value(codes[c]);
      else if (line.table)
        for (int64_t c = col; c < end; ++c) out[c] = line.value(codes[c]);
      else
        for (int64_t c = col; c < end; ++c) out[c] = line.scale * (static_cast<float>(codes[c]) - line.zero) - line.min;
    }
  }
}

Matrix dequantize(const Quantized& q) {
  constexpr int64_t kWeights = int64_t{1} << 16;  // per task: fewer are not worth another thread
  Matrix out(q.shape().rows, q.shape().cols);
  const int64_t rows = std::max<int64_t>(1, kWeights / std::max<int64_t>(1, out.cols()));
  parallel_for((out.rows() + rows - 1) / rows, [&](int64_t i) {
    const int64_t first = i * rows;
    dequantize_rows(q, first, std::min(first + rows, out.rows()), out.row(first));
  });
  return out;
}

}  // namespace pare
