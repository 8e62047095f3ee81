// SPDX-License-Identifier: BSL-1.0
// J8: the memory of a worker that waits, and of a task that does; what a pool does while nothing is to be done.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "common/memory.hpp"
#include "common/report.hpp"
#include "common/work.hpp"
#include "floors/processes.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

using namespace std::chrono_literals;

// ---- a worker that waits -------------------------------------------------------------------------------------------

void idle_worker(const std::string& job, bool large_parent) {
  std::optional<gibibyte_of_heap> heap;
  if (large_parent) heap.emplace();
  emit("floor:fork-idle-child", job, "private_dirty", sleeping_child_mebibytes(), "MiB");
  procpool::process_pool pool{workers};
  for (int i = 0; i != 20; ++i) keep(pool.apply(increment, i));
  std::this_thread::sleep_for(100ms);
  for (const char* field : {"Private_Dirty", "Pss"}) {
    samples each;
    for (const procpool::worker_stats& worker : pool.stats().workers) {
      each.add(proc_mebibytes(worker.pid, "smaps_rollup", field));
    }
    emit(procpool_impl, job, field == std::string("Pss") ? "pss" : "private_dirty", each.median(), "MiB");
  }
}

// ---- tasks that wait -----------------------------------------------------------------------------------------------

void wait_for_word(const procpool::shared_array<int>& word) {
  while (std::atomic_ref(word[0]).load() == 0) std::this_thread::sleep_for(1ms);
}

/// Resident memory of this process in bytes, with what it shares with the workers.
double resident_bytes() { return proc_mebibytes(::getpid(), "status", "VmRSS") * static_cast<double>(mebibyte); }

/// The futures are counted too: nobody can have such a task without one.
void queued_tasks() {
  const int tasks = scaled(full() ? 10'000'000 : 1'000'000, 10'000);
  procpool::process_pool pool{workers};
  const auto word = pool.make_shared_array<int>(1);
  std::vector<procpool::future<void>> busy;
  for (int i = 0; i != workers; ++i) busy.push_back(pool.apply_async(wait_for_word, word));
  while (pool.stats().tasks_running != workers) std::this_thread::sleep_for(1ms);

  std::vector<procpool::future<int>> futures;
  futures.reserve(static_cast<std::size_t>(tasks));
  const double before = resident_bytes();
  for (int i = 0; i != tasks; ++i) futures.push_back(pool.apply_async(increment, i));
  const double after = resident_bytes();
  std::atomic_ref(word[0]).store(1);
  for (int i = 0; i != tasks; ++i) {
    if (futures[static_cast<std::size_t>(i)].get() != i + 1) throw std::logic_error("a queued task: a wrong result");
  }
  emit(procpool_impl, "J8-queued", "per_task", (after - before) / tasks, "byte");
}

// ---- nothing to do -------------------------------------------------------------------------------------------------

std::string first_line(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// This process and all that were forked from it without an exec: the program lies at the same random address.
std::vector<std::string> processes_like_this() {
  const std::string mine = first_line("/proc/self/maps");
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") == std::string::npos && first_line(entry.path() / "maps") == mine) {
      all.push_back(name);
    }
  }
  return all;
}

/// What all of their threads have done so far, but for the one that asks.
struct activity {
  double switches = 0, cpu_ns = 0;
};
activity activity_of(const std::vector<std::string>& processes) {
  activity sum;
  for (const std::string& process : processes) {
    for (const auto& thread : std::filesystem::directory_iterator("/proc/" + process + "/task")) {
      if (thread.path().filename() == std::to_string(::gettid())) continue;
      double ran = 0, waited = 0, slices = 0;
      std::ifstream(thread.path() / "schedstat") >> ran >> waited >> slices;
      sum.cpu_ns += ran;
      sum.switches += slices;
    }
  }
  return sum;
}

void idle_pool() {
  const auto time = std::chrono::duration<double>(std::min(10.0, scaled(10.0, 0.2)));
  procpool::process_pool pool{workers};
  for (int i = 0; i != 20; ++i) keep(pool.apply(increment, i));
  std::this_thread::sleep_for(300ms);  // what the last task has left to do is done
  const std::vector<std::string> all = processes_like_this();
  if (all.size() < 1 + workers) throw std::runtime_error("the pool's processes are not found in /proc");
  const activity before = activity_of(all);
  if (before.cpu_ns == 0) throw std::runtime_error("this kernel does not count how long threads run (schedstat)");
  std::this_thread::sleep_for(time);
  const activity after = activity_of(all);
  emit(procpool_impl, "J8-idle", "wakeups_in_10s", (after.switches - before.switches) * 10 / time.count(), "");
  emit(procpool_impl, "J8-idle", "cpu_in_10s", (after.cpu_ns - before.cpu_ns) / 1e6 * 10 / time.count(), "ms");
}

}  // namespace

void add_footprint(job_list& jobs) {
  jobs.push_back({"J8-small-parent", [] { idle_worker("J8-small-parent", false); }});
  jobs.push_back({"J8-1GiB-parent", [] { idle_worker("J8-1GiB-parent", true); }});
  jobs.push_back({"J8-queued", queued_tasks});
  jobs.push_back({"J8-idle", idle_pool});
}

}  // namespace bench
