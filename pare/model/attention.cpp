#include "pare/model/attention.h"

#include <cblas.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "pare/base/float_formats.h"
#include "pare/base/threads.h"
#include "pare/model/elementwise.h"

namespace pare {
namespace {

int to_int(int64_t x) { return static_cast<int>(x); }
float round_to_bf16(float x) { return bf16_to_f32(f32_to_bf16(x)); }

constexpr int64_t kFewRows = 4;  // one pass over the keys for each, without the copies of a matrix product
constexpr int64_t kKeys = 256;   // that a tile takes at a time: with its scores they stay in the cache

// scores (rows x keys) = q (rows x d) · kᵀ
void score(const float* q, int64_t rows, MatrixView k, float* scores) {
  if (rows <= kFewRows) {
    for (int64_t r = 0; r < rows; ++r)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, to_int(k.rows), to_int(k.cols), 1.0f, k.data, to_int(k.stride),
                  q + r * k.cols, 1, 0.0f, scores + r * k.rows, 1);
    return;
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_int(rows), to_int(k.rows), to_int(k.cols), 1.0f, q,
              to_int(k.cols), k.data, to_int(k.stride), 0.0f, scores, to_int(k.rows));
}

// out (rows x d) += p (rows x keys) · v
void mix(const float* p, int64_t rows, MatrixView v, float* out) {
  if (rows <= kFewRows) {
    for (int64_t r = 0; r < rows; ++r)
      cblas_sgemv(CblasRowMajor, CblasTrans, to_int(v.rows), to_int(v.cols), 1.0f, v.data, to_int(v.stride),
                  p + r * v.rows, 1, 1.0f, out + r * v.cols, 1);
    return;
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_int(rows), to_int(v.cols), to_int(v.rows), 1.0f, p,
              to_int(v.rows), v.data, to_int(v.stride), 1.0f, out, to_int(v.cols));
}

// Rows without gaps: strides that are powers of two would fall on the same lines of the cache.
MatrixView gathered(MatrixView from, std::vector<float>& into) {
  into.resize(static_cast<size_t>(from.rows * from.cols));
  for (int64_t r = 0; r < from.rows; ++r) std::copy_n(from.row(r), from.cols, into.data() + r * from.cols);
  return {into.data(), from.rows, from.cols, from.cols};
}

// Some consecutive queries of all heads that share one key-value head, and what was mixed for them so far. Rows are
// query-major, then head, so that the heads share every product.
class Tile {
 public:
  void start(const AttentionShape& shape, MatrixView queries, int64_t kv_head, int64_t begin, int64_t end,
             int64_t first) {
    shape_ = shape;
    kv_head_ = kv_head;
    begin_ = begin;
    end_ = end;
    first_ = first;
    const int64_t d = shape.head_dim;
    queries_.resize(static_cast<size_t>(rows() * d));
    mixed_.assign(static_cast<size_t>(rows() * shape.value_dim), 0.0f);
    scale_ = shape.scale != 0 ? shape.scale : 1 / std::sqrt(static_cast<float>(d));
    adjusts_ = shape.cap > 0 || !shape.slopes.empty();
    const float softmax_scale = adjusts_ ? 1 : scale_;
    softmax_.assign(static_cast<size_t>(rows()), Softmax(softmax_scale));
    for (int64_t r = 0; r < rows() && !shape.sinks.empty(); ++r)
      softmax_[static_cast<size_t>(r)].add_score(shape.sinks[static_cast<size_t>(head(r))] / softmax_scale);
    for (int64_t r = 0; r < rows(); ++r) std::copy_n(queries.row(query(r)) + head(r) * d, d, queries_.data() + r * d);
  }

  int64_t rows() const { return (end_ - begin_) * group(); }
  // Keys that any of the queries sees.
  int64_t first_key() const {
    return shape_.window > 0 ? std::max<int64_t>(0, first_ + begin_ - shape_.window + 1) : 0;
  }
  int64_t last_key() const { return first_ + end_; }

  // Keys and values of this head from position `begin` on.
  void take(MatrixView keys, MatrixView values, int64_t begin, std::vector<float>& scores) {
    const int64_t d = shape_.value_dim, count = std::min(keys.rows, last_key() - begin);
    scores.resize(static_cast<size_t>(rows() * count));
    score(queries_.data(), rows(), keys.rows_between(0, count), scores.data());
    for (int64_t r = 0; r < rows(); ++r) {
      const std::span<float> row(scores.data() + r * count, static_cast<size_t>(count));
      if (adjusts_) adjust(row, begin, r);
      const float shrink = weigh(row, begin, first_ + query(r), softmax_[static_cast<size_t>(r)]);
      if (shrink == 1) continue;
      for (int64_t i = 0; i < d; ++i) mixed_[static_cast<size_t>(r * d + i)] *= shrink;
    }
    mix(scores.data(), rows(), values.rows_between(0, count), mixed_.data());
  }

  void finish(float* out) const {
    const int64_t d = shape_.value_dim;
    for (int64_t r = 0; r < rows(); ++r) {
      const float share = 1 / softmax_[static_cast<size_t>(r)].sum();
      const float* from = mixed_.data() + r * d;
      float* to = out + (query(r) * shape_.heads + head(r)) * d;
      for (int64_t i = 0; i < d; ++i) to[i] = from[i] * share;
    }
  }

 private:
  int64_t group() const { return shape_.heads / shape_.kv_heads; }
  int64_t query(int64_t row) const { return begin_ + row / group(); }
  int64_t head(int64_t row) const { return kv_head_ * group() + row % group(); }

  // Scales the scores of a row, for the keys from `first_key` on, and adds what the shape asks for.
  void adjust(std::span<float> scores, int64_t first_key, int64_t row) const {
    for (float& x : scores) x *= scale_;
    if (shape_.cap > 0)
      for (float& x : scores) x = shape_.cap * std::tanh(x / shape_.cap);
    if (shape_.slopes.empty()) return;
    const float slope = shape_.slopes[static_cast<size_t>(head(row))];
    for (size_t i = 0; i < scores.size(); ++i) {
      const float gain = slope * static_cast<float>(first_key + static_cast<int64_t>(i));
      scores[i] += shape_.slope_scale * (shape_.round_bias ? round_to_bf16(gain) : gain);
    }
  }

  // Scores of one query for the keys from `first_key` on become weights; those that it does not see, 0.
  float weigh(std::span<float> scores, int64_t first_key, int64_t position, Softmax& softmax) const {
    const auto count = static_cast<int64_t>(scores.size());
    const int64_t last = std::clamp<int64_t>(position + 1 - first_key, 0, count);
    int64_t seen = shape_.window > 0 ? position - shape_.window + 1 : 0;
    if (shape_.chunk > 0) seen = std::max(seen, position / shape_.chunk * shape_.chunk);
    const int64_t begin = std::clamp<int64_t>(seen - first_key, 0, last);
    std::fill(scores.begin(), scores.begin() + begin, 0.0f);
    std::fill(scores.begin() + last, scores.end(), 0.0f);
    return softmax.add(scores.subspan(static_cast<size_t>(begin), static_cast<size_t>(last - begin)));
  }

  AttentionShape shape_;
  int64_t kv_head_ = 0, begin_ = 0, end_ = 0, first_ = 0;
  float scale_ = 1;
  bool adjusts_ = false;
  std::vector<float> queries_, mixed_;
  std::vector<Softmax> softmax_;
};

constexpr int64_t kTiles = 4;  // that share what was gathered

struct Scratch {
  std::array<Tile, kTiles> tiles;
  std::vector<float> scores, keys, values;
};

// Queries [begin, end) of one key-value head, `height` of them a tile.
struct Work {
  int64_t kv_head, begin, end, height;
};

void attend_part(const AttentionShape& shape, const Work& work, MatrixView queries, MatrixView keys, MatrixView values,
                 int64_t first, float* out, Scratch& scratch) {
  const auto count = static_cast<size_t>((work.end - work.begin + work.height - 1) / work.height);
  const std::span<Tile> tiles = std::span(scratch.tiles).first(count);
  for (size_t i = 0; i < count; ++i) {
    const int64_t begin = work.begin + static_cast<int64_t>(i) * work.height;
    tiles[i].start(shape, queries, work.kv_head, begin, std::min(work.end, begin + work.height), first);
  }
  const bool few = tiles[0].rows() <= kFewRows && count == 1;
  const int64_t last = tiles.back().last_key(), step = few ? last : kKeys;
  const auto of_head = [&](MatrixView m, int64_t d, int64_t begin, std::vector<float>& into) {
    const MatrixView part =
        m.rows_between(begin, std::min(last, begin + step)).cols_between(work.kv_head * d, (work.kv_head + 1) * d);
    return few ? part : gathered(part, into);
  };
  for (int64_t key = tiles[0].first_key(); key < last; key += step) {
    const MatrixView k = of_head(keys, shape.head_dim, key, scratch.keys),
                     v = of_head(values, shape.value_dim, key, scratch.values);
    for (Tile& tile : tiles)
      if (key < tile.last_key() && key + step > tile.first_key()) tile.take(k, v, key, scratch.scores);
  }
  for (const Tile& tile : tiles) tile.finish(out);
}

}  // namespace

// 2^(-8 i / n) for the first n heads, n being the largest power of two; the others get the odd powers of 2^(-4 / n).
std::vector<float> alibi_slopes(const Config& config) {
  int64_t n = 1;
  while (2 * n <= config.heads) n *= 2;
  std::vector<float> slopes;
  for (int64_t h = 0; h < config.heads; ++h) {
    const double exponent = h < n ? -8.0 * static_cast<double>(h + 1) / static_cast<double>(n)
                                  : -4.0 * static_cast<double>(2 * (h - n) + 1) / static_cast<double>(n);
    const auto slope = static_cast<float>(std::exp2(exponent));
    slopes.push_back(config.alibi_bf16 ? round_to_bf16(slope) : slope);
  }
  return slopes;
}

void attend(const AttentionShape& asked, MatrixView queries, MatrixView keys, MatrixView values, int64_t first,
            float* out) {
  AttentionShape shape = asked;
  if (shape.value_dim == 0) shape.value_dim = shape.head_dim;
  assert(keys.rows == first + queries.rows && values.rows == keys.rows);
  // About 128 rows a tile: enough to pay for what a product copies, few enough that little is computed beyond the
  // diagonal.
  const int64_t height = std::max<int64_t>(1, 128 / (shape.heads / shape.kv_heads)), width = height * kTiles;
  const int64_t across = (queries.rows + width - 1) / width, items = across * shape.kv_heads;
  // Small items several at a time: waking a thread takes as long as some ten thousand products.
  const int64_t cost = std::min(queries.rows, width) * shape.heads / shape.kv_heads * keys.rows * shape.head_dim;
  const int64_t batch = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, cost));
  parallel_for((items + batch - 1) / batch, [&](int64_t at) {
    static thread_local Scratch scratch;
    for (int64_t i = at * batch; i < std::min(items, (at + 1) * batch); ++i) {
      const int64_t begin = (across - 1 - i / shape.kv_heads) * width;  // long rows first
      const Work work{i % shape.kv_heads, begin, std::min(queries.rows, begin + width), height};
      attend_part(shape, work, queries, keys, values, first, out, scratch);
    }
  });
}

}  // namespace pare
