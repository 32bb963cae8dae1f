#include "pare/base/threads.h"

#include <sched.h>

namespace pare {
namespace {

int available_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return 1;
}

}  // namespace

void set_threads(int count) { omp_set_num_threads(count > 0 ? count : available_cores()); }
int threads() { return omp_get_max_threads(); }

}  // namespace pare
