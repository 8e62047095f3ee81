// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include <procpool/detail/posix/usable_cpus.hpp>
#include <procpool/options.hpp>

namespace procpool::detail {

/// What a transport starts its engine from: pool_options, checked and with every default filled in.
struct engine_setup {
  int processes = 1;                    ///< at least 1
  std::function<void()> initializer{};  ///< may be empty
  std::function<void()> finalizer{};    ///< may be empty
  std::size_t max_tasks_per_child = 0;
  std::size_t max_memory_per_child = 0;
  std::size_t max_queued = 0;
  std::string name{};
};

/// Throws std::invalid_argument for a number of processes below 1.
inline engine_setup make_engine_setup(pool_options options) {
  const int processes = options.processes ? *options.processes : usable_cpus();
  if (processes < 1) {
    throw std::invalid_argument("procpool: process_pool: processes is " + std::to_string(processes) +
                                ", it must be at least 1");
  }
  return {.processes = processes,
          .initializer = std::move(options.initializer),
          .finalizer = std::move(options.finalizer),
          .max_tasks_per_child = options.max_tasks_per_child,
          .max_memory_per_child = options.max_memory_per_child,
          .max_queued = options.max_queued,
          .name = std::move(options.name)};
}

}  // namespace procpool::detail
