#include "pare/grid/quantized.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "pare/base/threads.h"
#include "pare/grid/families.h"
#include "pare/grid/lanes.h"

namespace pare {

// ---- the closed set

namespace {

constexpr BlockTraits kBlocks[] = {{BlockSpec::Type::q4_0, "q4_0", 4.5, 15, 8},
                                   {BlockSpec::Type::q8_0, "q8_0", 8.5, 255, 128}};
constexpr SuperBlockTraits kSuperBlocks[] = {
    {SuperBlockSpec::Type::q4_k, "q4_k", 4.5, 15, 0, 32, 0, 63, true},
    {SuperBlockSpec::Type::q6_k, "q6_k", 6.5625, 63, 32, 16, -128, 127, false}};

template <class T>
float as_float(T integer) {
  return static_cast<float>(integer);
}

int64_t windows_in(int64_t cols, int64_t window) { return (cols + window - 1) / window; }

Affine make(AffineSpec spec, Shape s) {
  if (spec.group == 0) spec.group = s.cols;
  const int64_t groups = windows_in(s.cols, spec.group);
  const auto zero = static_cast<uint8_t>(spec.symmetric ? 1 << (spec.bits - 1) : spec.lowest_zero);
  return {spec, Plane<float>(groups, s.rows), Plane<uint8_t>(groups, s.rows, zero)};
}
Block make(const BlockSpec& spec, Shape s) { return {spec, Plane<float>(s.cols / Block::kColumns, s.rows)}; }
SuperBlock make(const SuperBlockSpec& spec, Shape s) {
  const SuperBlockTraits& t = traits(spec);
  const int64_t blocks = s.cols / SuperBlock::kColumns, subs = s.cols / t.sub;
  SuperBlock b{spec, Plane<float>(blocks, s.rows), {}, Plane<int8_t>(subs, s.rows), {}};
  if (t.mins) b.dmin = Plane<float>(blocks, s.rows), b.min = Plane<uint8_t>(subs, s.rows);
  return b;
}

// ---- lines

Line line_of(const Affine& p, int64_t row, int64_t col) {
  const int64_t group = col / p.spec.group;
  return {p.scale(group, row), as_float(p.zero(group, row)), 0};
}
Line line_of(const Block& p, int64_t row, int64_t col) {
  return {p.scale(col / Block::kColumns, row), as_float(traits(p.spec).middle), 0};
}
Line line_of(const SuperBlock& p, int64_t row, int64_t col) {
  const SuperBlockTraits& t = traits(p.spec);
  const int64_t block = col / SuperBlock::kColumns, sub = col / t.sub;
  return {p.d(block, row) * as_float(p.scale(sub, row)), as_float(t.middle),
          t.mins ? p.dmin(block, row) * as_float(p.min(sub, row)) : 0};
}

uint8_t nearest_code(const Line& line, int top, float x) {
  const float inverse = line.scale == 0 ? 0 : 1 / line.scale;
  const float wanted = (x + line.min) * inverse, lowest = -line.zero, highest = as_float(top) - line.zero;
  const float level = wanted > lowest ? (wanted < highest ? wanted : highest) : lowest;  // NaN: the lowest
  return static_cast<uint8_t>(std::nearbyint(level) + line.zero);
}

// The lines of a strip's rows at one column; the same products as line_of.
void gather(const Affine& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const int64_t group = col / p.spec.group;
  const float* scale = p.scale.row(group) + row;
  const uint8_t* zero = p.zero.row(group) + row;
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = scale[r];
    out.zero.v[r] = as_float(zero[r]);
  }
}
void gather(const Block& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const float* scale = p.scale.row(col / Block::kColumns) + row;
  const float middle = as_float(traits(p.spec).middle);
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = scale[r];
    out.zero.v[r] = middle;
  }
}
void gather(const SuperBlock& p, int64_t row, int rows, int64_t col, lanes::LineLanes& out) {
  const SuperBlockTraits& t = traits(p.spec);
  const int64_t block = col / SuperBlock::kColumns, sub = col / t.sub;
  const float *d = p.d.row(block) + row, middle = as_float(t.middle);
  const int8_t* scale = p.scale.row(sub) + row;
  for (int r = 0; r < rows; ++r) {
    out.scale.v[r] = d[r] * as_float(scale[r]);
    out.zero.v[r] = middle;
  }
  if (!t.mins) return;
  const float* dmin = p.dmin.row(block) + row;
  const uint8_t* min = p.min.row(sub) + row;
  for (int r = 0; r < rows; ++r) out.min.v[r] = dmin[r] * as_float(min[r]);
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

void fit_rows(Affine& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  lanes::ScaleFit fit;
  lanes::fit_affine(c, p.spec, search, fit);
  for (int r = 0; r < rows; ++r) {
    p.scale(window, row + r) = fit.scale.v[r];
    p.zero(window, row + r) = static_cast<uint8_t>(fit.zero.v[r]);
  }
}
void fit_rows(Block& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  lanes::Lanes scale;
  lanes::fit_block(c, p.spec.type, search, scale);
  std::copy_n(scale.v, rows, p.scale.row(window) + row);
}
void fit_rows(SuperBlock& p, int64_t window, int64_t row, int rows, const lanes::Columns& c, Search search) {
  const SuperBlockTraits& t = traits(p.spec);
  lanes::SuperFit fit;
  t.mins ? lanes::fit_super_affine(c, search, fit) : lanes::fit_super_symmetric(c, search, fit);
  std::copy_n(fit.d.v, rows, p.d.row(window) + row);
  const int64_t subs = SuperBlock::kColumns / t.sub;
  for (int64_t j = 0; j < subs; ++j)
    for (int r = 0; r < rows; ++r) p.scale(window * subs + j, row + r) = static_cast<int8_t>(fit.scale[j].v[r]);
  if (!t.mins) return;
  std::copy_n(fit.dmin.v, rows, p.dmin.row(window) + row);
  for (int64_t j = 0; j < subs; ++j)
    for (int r = 0; r < rows; ++r) p.min(window * subs + j, row + r) = static_cast<uint8_t>(fit.min[j].v[r]);
}

// buffers.x holds the window's weights, lane = row.
void fit_loaded(Params& params, int64_t window, const Strip& strip, const FitHow& how, Scratch& buffers) {
  const int64_t columns = strip.last - strip.first;
  lanes::sanitize(buffers.x.data(), columns);
  if (how.search == Search::error) {
    const float* importance = how.importance.empty() ? nullptr : how.importance.data() + strip.first;
    const bool larger = how.nearest_follows && std::holds_alternative<SuperBlock>(params);
    lanes::weigh(buffers.x.data(), columns, importance, larger, buffers.importance.data());
  }
  const lanes::Columns c{buffers.x.data(), buffers.importance.data(), columns};
  std::visit([&](auto& p) { fit_rows(p, window, strip.first_row, strip.rows, c, how.search); }, params);
}

// Waking threads costs more than fitting a small window, above all on a machine that is busy with something else.
bool worth_threads(int64_t weights, Search search) {
  return weights * (search == Search::error ? 16 : 1) >= int64_t{1} << 15;
}

}  // namespace

const BlockTraits& traits(const BlockSpec& spec) { return kBlocks[static_cast<size_t>(spec.type)]; }
const SuperBlockTraits& traits(const SuperBlockSpec& spec) { return kSuperBlocks[static_cast<size_t>(spec.type)]; }

int top_code(const Params& params) {
  return std::visit(Overloaded{[](const Affine& p) { return (1 << p.spec.bits) - 1; },
                               [](const Block& p) { return traits(p.spec).top; },
                               [](const SuperBlock& p) { return traits(p.spec).top; }},
                    params);
}
int64_t line_columns(const Params& params) {
  return std::visit(
      Overloaded{[](const Affine& p) { return p.spec.group; }, [](const Block&) { return Block::kColumns; },
                 [](const SuperBlock& p) { return traits(p.spec).sub; }},
      params);
}
Line line_at(const Params& params, int64_t row, int64_t col) {
  return std::visit([&](const auto& p) { return line_of(p, row, col); }, params);
}

// ---- Quantized

Quantized::Quantized(const Grid& grid, Shape shape) {
  check_shape(grid, shape, "");
  std::visit([&](const auto& spec) { params = make(spec, shape); }, grid);
  codes = Plane<uint8_t>(shape.rows, shape.cols);
}

Grid Quantized::grid() const {
  return std::visit([](const auto& p) { return Grid(p.spec); }, params);
}
int64_t Quantized::window() const {
  return std::visit(
      Overloaded{[](const Affine& p) { return p.spec.group; }, [](const Block&) { return Block::kColumns; },
                 [](const SuperBlock&) { return SuperBlock::kColumns; }},
      params);
}
int64_t Quantized::windows() const { return shape().cols / window(); }
int Quantized::step() const { return 1; }

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
  const int64_t shared = line_columns(params);
  const int top = top_code(params);
  for (int64_t col = strip.first; col < strip.last;) {
    const int64_t end = std::min(strip.last, (col / shared + 1) * shared);
    lanes::LineLanes line{};
    std::visit([&](const auto& p) { gather(p, strip.first_row, strip.rows, col, line); }, params);
    lanes::round(line, top, strip.values + (col - strip.first) * kLanes, end - col, strip.rows,
                 codes.row(strip.first_row) + col, codes.cols());
    col = end;
  }
}

uint8_t Quantized::nearest(int64_t row, int64_t col, float x) const {
  return nearest_code(line_at(params, row, col), top_code(params), x);
}
float Quantized::value(int64_t row, int64_t col, uint8_t code) const { return line_at(params, row, col).value(code); }

int Quantized::candidates(int64_t row, int64_t col, std::span<const float> values, std::span<uint8_t> out) const {
  assert(std::ssize(values) == step());
  const Line line = line_at(params, row, col);
  const int top = top_code(params), count = std::min(static_cast<int>(out.size()), top + 1);
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
      if (q.order.empty())
        for (int64_t c = col; c < end; ++c) out[c] = line.value(codes[c]);
      else
        for (int64_t c = col; c < end; ++c) out[q.order[static_cast<size_t>(c)]] = line.value(codes[c]);
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
