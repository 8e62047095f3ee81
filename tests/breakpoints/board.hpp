// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace breakpoints {

inline constexpr std::size_t most_tasks = 128;  ///< of one round
inline constexpr int pool_size = 2;

/// What the tracer, the application and its workers share, without anything of the library. Made before all of them.
struct board {
  // Written by the workers: how often the task of that number was begun in this round.
  std::atomic<int> ran[most_tasks];
  // Written by the workers: when the one with that index was last ready, in ns; and the round of the last broadcast.
  std::atomic<std::int64_t> ready_at[pool_size];
  std::atomic<int> present[pool_size];

  // Written by the tracer: when it killed something in this round; 0: not yet.
  std::atomic<std::int64_t> killed_at;

  // Written by the application, for the tracer: what became of the round.
  char complaint[480];      ///< empty if all was as it must be
  char crash[240];          ///< what the last worker_crashed says
  int values;               ///< tasks that ended in a value (or in the exception that they threw)
  int crashed;              ///< that ended in worker_crashed, where nothing of the test's own killed the worker
  int broken;               ///< that ended in pool_broken, or the constructor threw worker_start_error
  std::int64_t back_ns;     ///< from the kill until the replacement was ready; 0: nothing was replaced
  std::int64_t longest_ns;  ///< of a wait for a result after the kill
  std::int64_t gone_ns;     ///< from the end of the pool until no process of it was left; -1: some were

  static board* make() {
    void* at = ::mmap(nullptr, sizeof(board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) std::abort();
    return ::new (at) board{};
  }

  /// Before a round.
  void clear() {
    for (auto& each : ran) each = 0;
    for (auto& each : present) each = 0;
    complaint[0] = crash[0] = '\0';
    values = crashed = broken = 0;
    back_ns = longest_ns = gone_ns = 0;
  }
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

inline std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

}  // namespace breakpoints
