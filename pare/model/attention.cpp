#include "pare/model/attention.h"

#include <cblas.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "pare/base/threads.h"
#include "pare/model/elementwise.h"

namespace pare {
namespace {

int to_int(int64_t x) { return static_cast<int>(x); }

// Few rows: one pass over the keys for each, without the copies that a matrix product makes of them.
constexpr int64_t kFewRows = 4;

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

// out (rows x d) = p (rows x keys) · v
void mix(const float* p, int64_t rows, MatrixView v, float* out) {
  if (rows <= kFewRows) {
    for (int64_t r = 0; r < rows; ++r)
      cblas_sgemv(CblasRowMajor, CblasTrans, to_int(v.rows), to_int(v.cols), 1.0f, v.data, to_int(v.stride),
                  p + r * v.rows, 1, 0.0f, out + r * v.cols, 1);
    return;
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_int(rows), to_int(v.cols), to_int(v.rows), 1.0f, p,
              to_int(v.rows), v.data, to_int(v.stride), 0.0f, out, to_int(v.cols));
}

struct Scratch {
  std::vector<float> queries, scores, mixed;
};

// One tile: some consecutive queries of all heads that share one key-value head. Rows of the tile: query-major, then
// head, so that the heads share every product.
class Tile {
 public:
  Tile(const AttentionShape& shape, MatrixView queries, int64_t kv_head, int64_t begin, int64_t end, int64_t first)
      : shape_(shape), queries_(queries), kv_head_(kv_head), begin_(begin), end_(end), first_(first) {
    group_ = shape.heads / shape.kv_heads;
    rows_ = (end - begin) * group_;
    last_key_ = first + end;
    first_key_ = shape.window > 0 ? std::max<int64_t>(0, first + begin - shape.window + 1) : 0;
  }

  void run(MatrixView keys, MatrixView values, float* out, Scratch& scratch) const {
    const int64_t d = shape_.head_dim, count = last_key_ - first_key_;
    scratch.queries.resize(static_cast<size_t>(rows_ * d));
    scratch.mixed.resize(scratch.queries.size());
    scratch.scores.resize(static_cast<size_t>(rows_ * count));
    const auto of_head = [&](MatrixView m) {
      return m.rows_between(first_key_, last_key_).cols_between(kv_head_ * d, (kv_head_ + 1) * d);
    };
    for (int64_t r = 0; r < rows_; ++r)
      std::copy_n(queries_.row(query(r)) + column(r), d, scratch.queries.data() + r * d);
    score(scratch.queries.data(), rows_, of_head(keys), scratch.scores.data());
    for (int64_t r = 0; r < rows_; ++r) softmax(scratch.scores.data() + r * count, count, first_ + query(r));
    mix(scratch.scores.data(), rows_, of_head(values), scratch.mixed.data());
    for (int64_t r = 0; r < rows_; ++r)
      std::copy_n(scratch.mixed.data() + r * d, d, out + query(r) * queries_.cols + column(r));
  }

 private:
  int64_t query(int64_t row) const { return begin_ + row / group_; }
  int64_t column(int64_t row) const { return (kv_head_ * group_ + row % group_) * shape_.head_dim; }

  // Scores of one query: those it does not see become 0, the others probabilities.
  void softmax(float* scores, int64_t count, int64_t position) const {
    const int64_t last = position + 1 - first_key_;
    const int64_t begin = shape_.window > 0 ? std::max<int64_t>(0, position - shape_.window + 1 - first_key_) : 0;
    const std::span<float> seen(scores + begin, static_cast<size_t>(last - begin));
    const float sum = exp_row(seen, 1 / std::sqrt(static_cast<float>(shape_.head_dim)));
    for (float& p : seen) p /= sum;
    std::fill(scores, scores + begin, 0.0f);
    std::fill(scores + last, scores + count, 0.0f);
  }

  AttentionShape shape_;
  MatrixView queries_;
  int64_t kv_head_, begin_, end_, first_;
  int64_t group_ = 1, rows_ = 0, first_key_ = 0, last_key_ = 0;
};

}  // namespace

void attend(const AttentionShape& shape, MatrixView queries, MatrixView keys, MatrixView values, int64_t first,
            float* out) {
  assert(keys.rows == first + queries.rows && values.rows == keys.rows);
  // About 128 rows a tile: enough to pay for what a product copies, few enough that scores stay in the cache and little
  // is computed beyond the diagonal.
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t height = std::max<int64_t>(1, 128 / group);
  const int64_t across = (queries.rows + height - 1) / height;
  parallel_for(across * shape.kv_heads, [&](int64_t i) {
    static thread_local Scratch scratch;
    const int64_t begin = (across - 1 - i / shape.kv_heads) * height;  // long rows first
    const Tile tile(shape, queries, i % shape.kv_heads, begin, std::min(queries.rows, begin + height), first);
    tile.run(keys, values, out, scratch);
  });
}

}  // namespace pare
