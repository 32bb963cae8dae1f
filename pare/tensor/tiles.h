// Inside tensor/ only: a loop over tiles whose body may call BLAS, always on one thread.
#pragma once

#include <cstdint>

#include "pare/base/threads.h"

namespace pare {

inline int to_int(int64_t x) { return static_cast<int>(x); }
inline int64_t tiles(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }

// BLAS runs on one thread inside a parallel region and on all of them outside. parallel_for opens no region for a lone
// tile: BLAS is then told that there is only one thread.
template <class Body>
void for_tiles(int64_t count, Body&& body) {
  if (count != 1) return parallel_for(count, body);
  struct OneThread {
    const int before = threads();
    OneThread() { omp_set_num_threads(1); }
    ~OneThread() { omp_set_num_threads(before); }
  } only;
  body(int64_t{0});
}

}  // namespace pare
