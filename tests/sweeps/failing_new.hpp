// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <atomic>

namespace sweeps {

/// A process that a pool is made of.
enum class kind { parent, zygote, worker };

/// Which allocations fail. Set where the pool is about to be made; zygote and workers inherit it.
struct failing_allocations {
  bool armed = false;
  kind where = kind::parent;
  long number = 0;    ///< the how manieth in its process
  long in_a_row = 1;  ///< and so many from there on
  bool once = true;   ///< in one process only, not in each of its kind
};
inline failing_allocations what_fails;

/// Shared between the processes of a run.
struct failed_allocations {
  std::atomic<long> count{0};
  std::atomic<pid_t> chosen{0};  ///< where they fail, if that is in one process only
};
inline failed_allocations* failed = nullptr;

/// To be called once in the process that a run is in: makes forked processes know what they are.
void count_forks();

}  // namespace sweeps
