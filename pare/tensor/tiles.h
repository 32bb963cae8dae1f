// Inside tensor/ only: a loop over tiles whose body may call BLAS, always on one thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pare/base/threads.h"

namespace pare {

inline int to_int(int64_t x) { return static_cast<int>(x); }
inline int64_t tiles(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }

// BLAS runs on one thread inside a parallel region and on all of them outside; parallel_for opens no region for a
// single call, so a lone tile is given an idle companion.
template <class Body>
void for_tiles(int64_t count, Body&& body) {
  if (count <= 0) return;
  parallel_for(std::max<int64_t>(count, 2), [&](int64_t tile) {
    if (tile < count) body(tile);
  });
}

}  // namespace pare
