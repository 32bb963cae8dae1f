#include <fmt/format.h>

#include <algorithm>

#include "pare/base/error.h"
#include "pare/base/threads.h"
#include "pare/solver/checks.h"
#include "pare/solver/solver.h"
#include "pare/tensor/linalg.h"

namespace pare {

void require_finite_weights(MatrixView w) {
  const auto bad = find_not_finite(w);
  if (!bad) return;
  throw Error({.what = "a weight is not a finite number",
               .where = fmt::format("row {}, column {}", bad->row, bad->col),
               .got = fmt::format("{}", w(bad->row, bad->col)),
               .remedy = "download or convert the model again; if the original holds it, it cannot be quantized"});
}

Quantized round_to_nearest(MatrixView w, const Grid& grid, const FitHow& how) {
  require_finite_weights(w);
  Quantized q(grid, w.shape());
  q.prepare(w);
  FitHow fit = how;
  fit.nearest_follows = true;
  const int64_t columns = q.window();
  parallel_for((w.rows + kLanes - 1) / kLanes, [&](int64_t i) {
    const int64_t row = i * kLanes;
    std::vector<float> values(static_cast<size_t>(columns * kLanes));
    Strip strip{values.data(), row, static_cast<int>(std::min<int64_t>(kLanes, w.rows - row))};
    for (strip.first = 0; strip.first < w.cols; strip.first = strip.last) {
      strip.last = strip.first + columns;
      strip.importance = fit.importance.empty() ? nullptr : fit.importance.data() + strip.first;
      load_strip(w, strip);
      q.fit(strip, fit);
      q.round(strip);
    }
  });
  return q;
}

}  // namespace pare
