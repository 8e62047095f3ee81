// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <memory>
#include <utility>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/in_process/in_process_engine.hpp>
#include <procpool/error.hpp>
#include <procpool/transport/transport.hpp>

namespace procpool {

/// No workers: each task runs in the thread that submits it, inside the submitting call, through the same codecs and
/// with the same errors as in a worker process. For debuggers, sanitizers and tests.
/// Shapes   there is one worker, with index 0, whatever number was asked for: `processes()` is 1.
/// Blocks   submitting takes as long as the tasks run, so what it returns is ready; `cancel()` is false.
///          `max_queued`, `max_tasks_per_child`, `grace` and `retries` mean nothing.
/// Errors   `not_supported` for `timeout` and `max_memory_per_child`: nobody is there to end a task.
///          A task sees and changes the live state of the program, and its crash is the program's.
struct in_process {
  static constexpr bool limits_tasks = false;

  static std::shared_ptr<detail::engine> start(detail::engine_setup setup) {
    if (setup.max_memory_per_child != 0) {
      throw detail::make_error<not_supported>(
          "process_pool: max_memory_per_child: with in_process there are no workers");
    }
    return std::make_shared<detail::in_process_engine>(std::move(setup));
  }
};

static_assert(transport<in_process>);

}  // namespace procpool
