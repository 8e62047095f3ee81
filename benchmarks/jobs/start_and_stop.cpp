// SPDX-License-Identifier: BSL-1.0
// J6: a pool is made, runs one task and is destroyed.
#include <optional>
#include <string>

#include <procpool/procpool.hpp>

#include "common/memory.hpp"
#include "common/report.hpp"
#include "common/work.hpp"
#include "floors/processes.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

double start_and_stop_pool_ms(int processes) {
  const stopwatch since;
  {
    procpool::process_pool pool{processes};
    keep(pool.apply(increment, 1));
  }
  return since.ms();
}

void start_and_stop(const std::string& job, int processes, bool large_parent) {
  std::optional<gibibyte_of_heap> heap;
  if (large_parent) heap.emplace();
  const int times = large_parent ? (processes < 64 ? scaled(3) : 1) : scaled(processes < 64 ? 15 : 5, 2);
  samples floor;
  samples own;
  for (int i = 0; i != times; ++i) {
    floor.add(start_and_stop_ms(processes));
    own.add(start_and_stop_pool_ms(processes));
  }
  emit("floor:fork-N-ack-stop-reap", job, "startstop", floor.median(), "ms");
  emit(procpool_impl, job, "startstop", own.median(), "ms");
}

}  // namespace

void add_start_and_stop(job_list& jobs) {
  for (const bool large_parent : {false, true}) {
    for (const int processes : {2, 8, 64}) {
      const std::string job = "J6-" + std::to_string(processes) + (large_parent ? "-1GiB-parent" : "");
      jobs.push_back({job, [=] { start_and_stop(job, processes, large_parent); }});
    }
  }
}

}  // namespace bench
