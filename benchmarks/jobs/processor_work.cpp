// SPDX-License-Identifier: BSL-1.0
// J5: many tasks of a millisecond of computing, while the caller waits. J7: one among them that takes as long as half
// of the others together.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "common/report.hpp"
#include "common/work.hpp"
#include "floors/processes.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

void even_work() {
  const std::uint64_t steps = steps_of_a_millisecond();
  const std::size_t tasks = tasks_of_efficiency();
  emit("floor:2proc-next-item", "J5", "efficiency",
       efficiency_of_two(tasks, steps, [&] { run_in_two_processes(tasks, steps); }), "");
  procpool::process_pool pool{workers};
  const std::vector<std::uint64_t> work(tasks, steps);
  emit(procpool_impl, "J5", "efficiency", efficiency_of_two(tasks, steps, [&] { keep(pool.map(burn, work)); }), "");
}

void skewed_work(const std::string& job, double relative_place, std::size_t chunksize) {
  const std::uint64_t steps = steps_of_a_millisecond();
  const std::size_t tasks = tasks_of_skew();
  std::vector<std::uint64_t> work(tasks + 1, steps);
  const auto place = static_cast<std::size_t>(relative_place * static_cast<double>(tasks));
  work[place] = steps * tasks / 2;
  procpool::process_pool pool{workers};
  emit(procpool_impl, job, "makespan/ideal",
       makespan_of_two(tasks, place, steps, [&] { keep(pool.map(burn, work, chunksize)); }), "");
}

}  // namespace

void add_processor_work(job_list& jobs) {
  jobs.push_back({"J5", even_work});
  struct {
    const char* name;
    double place;
  } const places[] = {{"first", 0}, {"mid", 0.5}, {"last", 1}};
  for (const auto& [name, place] : places) {
    for (const std::size_t chunksize : {0u, 1u}) {
      const std::string job = std::string("J7-") + name + (chunksize == 0 ? "-default" : "-chunk1");
      jobs.push_back({job, [job, at = place, chunksize] { skewed_work(job, at, chunksize); }});
    }
  }
}

}  // namespace bench
