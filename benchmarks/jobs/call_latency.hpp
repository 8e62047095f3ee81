// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <stdexcept>

#include <procpool/procpool.hpp>

#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"

namespace bench {

/// Nanoseconds of apply(int -> int), with a pause before each call in which the caller computes.
inline samples call_latency(procpool::process_pool<>& pool, int calls, std::chrono::nanoseconds pause = {}) {
  samples ns;
  for (int i = -calls / 10 - 10; i != calls; ++i) {
    if (pause.count() != 0) compute_for(pause);
    const stopwatch since;
    const int result = pool.apply(increment, i);
    const double taken = since.ns();
    if (result != i + 1) throw std::logic_error("apply: a wrong result");
    if (i >= 0) ns.add(taken);
  }
  return ns;
}

}  // namespace bench
