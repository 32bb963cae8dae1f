// One pool for everything: OpenMP. BLAS (OpenMP flavour) runs on one thread inside our parallel loops, so work is cut
// into fixed tiles by us and the result does not depend on the number of threads.
#pragma once

#include <omp.h>

#include <atomic>
#include <cstdint>
#include <exception>

namespace pare {

void set_threads(int count);  // 0: one per available core
int threads();

// Calls body(i) for i in [0, count), in any order, on all threads. An exception in any call is thrown here once all
// running calls have ended. Nested calls run on the caller's thread.
template <class Body>
void parallel_for(int64_t count, Body&& body) {
  if (count <= 1 || threads() == 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::exception_ptr error;
  std::atomic<bool> failed{false};
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < count; ++i) {
    if (failed.load(std::memory_order_relaxed)) continue;
    try {
      body(i);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace pare
