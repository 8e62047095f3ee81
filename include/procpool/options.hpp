// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace procpool {

/// How a pool is made. Every member has a default: name what you change.
struct pool_options {
  std::optional<int> processes{};        ///< workers; unset: CPUs this process may use (affinity mask and cgroup quota)
  std::function<void()> initializer{};   ///< runs in every worker, also in replacements, before its first task
  std::function<void()> finalizer{};     ///< runs in a worker that leaves in good order (retired, or the pool closed)
  std::size_t max_tasks_per_child = 0;   ///< tasks (elements) after which a worker is replaced; 0: never
  std::size_t max_memory_per_child = 0;  ///< bytes of growth since its initializer ended (resident memory of its own)
                                         ///< after which, once its task has ended, a worker is replaced; 0: never
  std::size_t max_queued = 0;            ///< submitting blocks while this many tasks (elements) wait; 0: no limit
  std::string name = "procpool";         ///< the workers' thread names in ps and top: NAME/0, NAME/1, …
};

/// How some calls are made: `pool.with({.timeout = 5s, .retries = 2}).map(...)`.
struct call_options {
  /// How long one task may run, counted from its start in the worker; 0: as long as it likes. One that runs longer ends
  /// in `task_timeout`, and its worker is killed.
  std::chrono::nanoseconds timeout{0};
  /// How long a task that was cancelled or timed out is left to return by itself, `this_worker::stop_requested()` being
  /// true, before its worker is killed. What it returns is dropped all the same, but the worker stays.
  std::chrono::nanoseconds grace{0};
  /// How many times a task whose worker died is run again. Exceptions, time-outs and cancelling are not retried.
  unsigned retries = 0;
  /// Lazy ranges: at most this many inputs taken and not yet yielded; 0: a small multiple of processes × chunksize.
  std::size_t buffersize = 0;
  /// Called as elements end, never concurrently, on the pool's callback thread or in the waiting call; `total` is 0
  /// while unknown. The call with done == total has returned before `map` returns or the future is ready. After
  /// cancel() or terminate() there are no more calls.
  std::function<void(std::size_t done, std::size_t total)> progress{};
};

/// One worker, as `process_pool::stats()` saw it.
struct worker_stats {
  std::size_t index = 0;             ///< 0 … processes-1, the same for a replacement
  pid_t pid = 0;                     ///< of the process that has the index now; 0 while there is none
  std::size_t generation = 0;        ///< 0 for the first process with that index, then 1, …
  std::size_t tasks_completed = 0;   ///< by all processes with that index: tasks that ended in a value
  std::chrono::nanoseconds busy{0};  ///< time this process has spent running tasks
  std::chrono::nanoseconds idle{0};  ///< time it has spent waiting for one
  std::size_t resident_bytes = 0;    ///< resident memory of the process now (`proc(5)`, statm)
  bool alive = false;                ///< whether the process is there and initialized
};

/// A snapshot; the counts are of tasks, each element of a map being one. At all times
/// tasks_submitted == tasks_completed + tasks_failed + tasks_queued + tasks_running.
struct pool_stats {
  std::size_t tasks_submitted = 0;
  std::size_t tasks_completed = 0;  ///< ended in a value
  std::size_t tasks_failed = 0;     ///< ended in anything else
  std::size_t tasks_queued = 0;
  std::size_t tasks_running = 0;
  std::size_t workers_started = 0;
  std::size_t workers_crashed = 0;  ///< ended in any other way, also killed by the pool (time limit, cancel)
  std::size_t workers_retired = 0;  ///< replaced in good order
  std::vector<worker_stats> workers{};
};

}  // namespace procpool
