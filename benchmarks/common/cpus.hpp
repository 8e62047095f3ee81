// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <vector>

namespace bench {

/// The CPUs that this thread may use.
inline std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu != CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<unsigned>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

/// This thread, and what it starts from now on, runs on `cpu` alone.
inline void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  ::sched_setaffinity(0, sizeof set, &set);
}

/// Puts this thread back on the CPUs that it had.
class unpin_at_end {
 public:
  unpin_at_end() { ::sched_getaffinity(0, sizeof before_, &before_); }
  unpin_at_end(const unpin_at_end&) = delete;
  unpin_at_end& operator=(const unpin_at_end&) = delete;
  ~unpin_at_end() { ::sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_{};
};

}  // namespace bench
