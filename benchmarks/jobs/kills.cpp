// SPDX-License-Identifier: BSL-1.0
// J9: SIGKILL of a busy worker: how long until its caller has the error, until a new worker has run a task.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include <procpool/procpool.hpp>

#include "common/memory.hpp"
#include "common/report.hpp"
#include "common/work.hpp"
#include "floors/processes.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

void tell_pid_and_burn(const procpool::shared_array<int>& pid) {
  std::atomic_ref(pid[0]).store(static_cast<int>(::getpid()));
  for (;;) keep(burn(1000));
}

void note_generation(const procpool::shared_array<std::size_t>& generations) {
  generations[procpool::this_worker::index()] = procpool::this_worker::generation();
}

/// The pool is made before the heap grows, as programs should.
void kills(const std::string& job, bool large_parent) {
  const int times = scaled(20, 3);
  const replacement_ms floor = kill_and_replace(times);
  emit("floor:pidfd+fork", job, "error_p50", floor.noticed.median(), "ms");
  emit("floor:pidfd+fork", job, "replaced_p50", floor.replaced.median(), "ms");

  procpool::process_pool pool{workers};
  std::optional<gibibyte_of_heap> heap;
  if (large_parent) heap.emplace();
  const auto generations = pool.make_shared_array<std::size_t>(workers);
  samples error;
  samples replaced;
  for (int i = 0; i != times; ++i) {
    const auto pid = pool.make_shared_array<int>(1);
    procpool::future<void> doomed = pool.apply_async(tell_pid_and_burn, pid);
    while (std::atomic_ref(pid[0]).load() == 0) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const stopwatch since;
    ::kill(pid[0], SIGKILL);
    try {
      doomed.get();
      throw std::logic_error("a killed task has ended well");
    } catch (const procpool::worker_crashed&) {
      error.add(since.ms());
    }
    pool.broadcast(note_generation, generations);  // in every worker, so in the new one too
    replaced.add(since.ms());
    if (generations[0] + generations[1] != static_cast<std::size_t>(i) + 1) {
      throw std::logic_error("the killed worker has not been replaced once");
    }
  }
  emit(procpool_impl, job, "error_p50", error.median(), "ms");
  emit(procpool_impl, job, "replaced_p50", replaced.median(), "ms");
}

}  // namespace

void add_kills(job_list& jobs) {
  jobs.push_back({"J9", [] { kills("J9", false); }});
  jobs.push_back({"J9-1GiB-parent", [] { kills("J9-1GiB-parent", true); }});
}

}  // namespace bench
