// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <stdexcept>

#include <procpool/detail/posix/process.hpp>
#include <procpool/detail/worker_context.hpp>

/// What a task, an initializer or a finalizer can ask about the worker that runs it. In a worker process it is valid
/// in every thread; with the `in_process` transport, in the thread that runs the task.
namespace procpool::this_worker {

/// Whether the caller runs in a worker.
inline bool in_worker() noexcept { return detail::current_worker().active; }

/// The worker's index, 0 … processes-1; a replacement keeps it.
/// Errors   std::logic_error outside of a worker.
inline std::size_t index() {
  if (!in_worker()) throw std::logic_error("procpool: this_worker::index: not in a worker");
  return detail::current_worker().index;
}

/// 0 for the first process with this index, then 1, …
/// Errors   std::logic_error outside of a worker.
inline std::size_t generation() {
  if (!in_worker()) throw std::logic_error("procpool: this_worker::generation: not in a worker");
  return detail::current_worker().generation;
}

/// Whether the task that runs now was cancelled, or has run past its time limit, and is to return: it has the `grace` of
/// its call for that. Cheap enough for the inner loop: three loads. False elsewhere, and with `in_process`.
inline bool stop_requested() noexcept {
  const detail::worker_context& worker = detail::current_worker();
  return worker.process == detail::current_process() && worker.words.requested();
}

}  // namespace procpool::this_worker
