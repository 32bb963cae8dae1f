#include "pare/kernels/packed.h"

#include <algorithm>
#include <cassert>
#include <variant>

#include "pare/base/mapped_file.h"
#include "pare/kernels/kernel.h"

namespace pare {
namespace {

struct Floats {
  FloatRows rows;
  std::shared_ptr<const void> keep;
  bool mapped = false;
  const FloatKernel* kernel = nullptr;
};
struct Packed {
  Tiles tiles;
  const TileKernel* kernel = nullptr;
};

constexpr int64_t kExpandUnits = 16;  // columns of a strip that are turned from lanes to rows at a time: 32 KB
constexpr int64_t kReadBytes = 2 << 20;

// One strip's rows [first, last) to row-major, columns to their original places. out is row `first`.
void expand_strip(const Packed& p, int64_t strip, int64_t first, int64_t last, float* out) {
  const TileLayout& t = p.tiles.layout;
  const std::vector<int32_t>& order = p.tiles.order;
  alignas(64) float lanes[kExpandUnits * kUnit * kLanes];
  for (int64_t u = 0; u < t.units; u += kExpandUnits) {
    const int64_t end = std::min(u + kExpandUnits, t.units), first_col = u * kUnit;
    const int64_t cols = std::min(end * kUnit, t.shape.cols) - first_col;
    p.kernel->expand(p.tiles, strip, u, end, lanes, kLanes);
    for (int64_t r = first; r < last; ++r) {
      float* row = out + (r - first) * t.shape.cols;
      const float* lane = lanes + (r - strip * kLanes);
      if (order.empty())
        for (int64_t c = 0; c < cols; ++c) row[first_col + c] = lane[c * kLanes];
      else
        for (int64_t c = 0; c < cols; ++c) row[order[static_cast<size_t>(first_col + c)]] = lane[c * kLanes];
    }
  }
}

void expand_tiles_rows(const Packed& p, int64_t first, int64_t last, float* out) {
  const int64_t cols = p.tiles.layout.shape.cols, first_strip = first / kLanes;
  for_tasks((last + kLanes - 1) / kLanes - first_strip, (last - first) * cols, [&](int64_t i) {
    const int64_t strip = first_strip + i;
    const int64_t from = std::max(first, strip * kLanes), to = std::min(last, (strip + 1) * kLanes);
    expand_strip(p, strip, from, to, out + (from - first) * cols);
  });
}

void expand_float_rows(const FloatRows& w, int64_t first, int64_t last, float* out) {
  const int64_t cols = w.shape.cols;
  for_tasks(last - first, (last - first) * cols, [&](int64_t i) {
    to_f32(w.type, {w.row(first + i), static_cast<size_t>(w.row_bytes())}, {out + i * cols, static_cast<size_t>(cols)});
  });
}

}  // namespace

struct PackedMatrix::Impl {
  std::variant<Floats, Packed> weights;
};

PackedMatrix::PackedMatrix() = default;
PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;

PackedMatrix PackedMatrix::of_floats(DType type, std::span<const std::byte> bytes, Shape shape,
                                     std::shared_ptr<const void> keep) {
  assert(type == DType::f32 || type == DType::f16 || type == DType::bf16);
  assert(static_cast<int64_t>(bytes.size()) >= shape.size() * info(type).bits / 8);
  const FloatRows rows{type, bytes.data(), shape};
  PackedMatrix m;
  m.impl_ = std::make_unique<Impl>(Impl{Floats{rows, std::move(keep), true, &choose(rows)}});
  return m;
}

PackedMatrix PackedMatrix::of_matrix(Matrix m) {
  const auto owned = std::make_shared<const Matrix>(std::move(m));
  PackedMatrix packed = of_floats(DType::f32, std::as_bytes(owned->values()), owned->shape(), owned);
  std::get<Floats>(packed.impl_->weights).mapped = false;
  return packed;
}

PackedMatrix PackedMatrix::of_quantized(const Quantized& q) {
  const Grid grid = q.grid();
  const TileKernel& kernel = choose(grid, q.shape());
  Packed p{{kernel.layout(grid, q.shape()), q.order, {}}, &kernel};
  p.tiles.memory = Lines(p.tiles.layout.bytes());
  kernel.pack(q, 0, p.tiles);
  PackedMatrix m;
  m.impl_ = std::make_unique<Impl>(Impl{std::move(p)});
  return m;
}

PackedMatrix PackedMatrix::of_rows(const Grid& grid, Shape shape, const ReadRows& read) {
  const TileKernel& kernel = choose(grid, shape);
  Packed p{{kernel.layout(grid, shape), {}, {}}, &kernel};
  p.tiles.memory = Lines(p.tiles.layout.bytes());
  const int64_t step = std::max<int64_t>(1, kReadBytes / std::max<int64_t>(1, shape.cols * kLanes)) * kLanes;
  for (int64_t first = 0; first < shape.rows; first += step) {
    const Quantized rows = read(first, std::min(first + step, shape.rows));
    assert(first == 0 || rows.order == p.tiles.order);
    p.tiles.order = rows.order;
    kernel.pack(rows, first, p.tiles);
  }
  PackedMatrix m;
  m.impl_ = std::make_unique<Impl>(Impl{std::move(p)});
  return m;
}

Shape PackedMatrix::shape() const {
  if (!impl_) return {};
  if (const auto* f = std::get_if<Floats>(&impl_->weights)) return f->rows.shape;
  return std::get<Packed>(impl_->weights).tiles.layout.shape;
}

int64_t PackedMatrix::bytes() const {
  if (!impl_) return 0;
  if (const auto* f = std::get_if<Floats>(&impl_->weights)) return f->rows.shape.rows * f->rows.row_bytes();
  const Tiles& tiles = std::get<Packed>(impl_->weights).tiles;
  return tiles.layout.bytes() + static_cast<int64_t>(tiles.order.size() * sizeof(tiles.order[0]));
}

std::string_view PackedMatrix::kernel() const {
  if (!impl_) return {};
  return std::visit([](const auto& w) { return w.kernel->name; }, impl_->weights);
}

void PackedMatrix::multiply(MatrixView x, float* y, int64_t y_stride) const {
  const Shape s = shape();
  assert(impl_ && x.cols == s.cols && y_stride >= s.rows);
  if (x.rows == 0 || s.rows == 0) return;
  if (s.cols == 0) {
    for (int64_t t = 0; t < x.rows; ++t) std::fill_n(y + t * y_stride, s.rows, 0.0f);
    return;
  }
  if (const auto* f = std::get_if<Floats>(&impl_->weights)) return f->kernel->multiply(f->rows, x, y, y_stride);
  const auto& p = std::get<Packed>(impl_->weights);
  p.kernel->multiply(p.tiles, x, y, y_stride);
}

void PackedMatrix::expand_rows(int64_t first, int64_t last, float* out) const {
  assert(impl_ && 0 <= first && first <= last && last <= shape().rows);
  if (first == last) return;
  if (const auto* f = std::get_if<Floats>(&impl_->weights)) return expand_float_rows(f->rows, first, last, out);
  expand_tiles_rows(std::get<Packed>(impl_->weights), first, last, out);
}

void PackedMatrix::forget() const {
  if (!impl_) return;
  const auto* f = std::get_if<Floats>(&impl_->weights);
  if (f && f->mapped) forget_pages({f->rows.data, static_cast<size_t>(bytes())});
}

}  // namespace pare
