// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace procpool::detail {

/// Where a forked worker finds whether the task that it runs is asked to stop: in its lane.
struct stop_words {
  const std::atomic<std::uint64_t>* stop = nullptr;       ///< the number of the element that is asked to
  const std::atomic<std::uint64_t>* claimed = nullptr;    ///< the number of the last that was started
  const std::atomic<std::uint64_t>* published = nullptr;  ///< the number of the last that has ended

  bool requested() const noexcept {
    if (stop == nullptr) return false;
    const std::uint64_t number = stop->load(std::memory_order_acquire);
    return number == claimed->load(std::memory_order_relaxed) && number > published->load(std::memory_order_relaxed);
  }
};

/// Which worker runs the code that asks.
struct worker_context {
  bool active = false;
  std::size_t index = 0;
  std::size_t generation = 0;
  pid_t process = 0;  ///< of a forked worker: a process that its task forks is another one
  stop_words words{};
};

/// Of this process. A forked worker sets it before it runs any code of the user, and never again, so every thread of
/// the worker may read it. A worker that is itself the parent of another pool hands its workers a copy to overwrite.
inline constinit worker_context process_worker_context{};

/// Of this thread, before that of the process: set while a thread of the parent plays the worker.
inline constinit thread_local const worker_context* thread_worker_context = nullptr;

inline const worker_context& current_worker() noexcept {
  return thread_worker_context != nullptr ? *thread_worker_context : process_worker_context;
}

/// Makes this thread a worker for as long as it lives; nests.
class worker_scope {
 public:
  explicit worker_scope(const worker_context& context) noexcept : outer_(thread_worker_context) {
    thread_worker_context = &context;
  }
  worker_scope(const worker_scope&) = delete;
  worker_scope& operator=(const worker_scope&) = delete;
  ~worker_scope() { thread_worker_context = outer_; }

 private:
  const worker_context* const outer_;
};

}  // namespace procpool::detail
