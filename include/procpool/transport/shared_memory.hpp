// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/scheduler/scheduler.hpp>
#include <procpool/detail/shared_memory/forked_workers.hpp>
#include <procpool/error.hpp>
#include <procpool/transport/transport.hpp>

namespace procpool {

/// The default transport: workers forked on this machine, each joined to the parent by a lane of shared memory.
struct shared_memory {
  static constexpr bool limits_tasks = true;

  /// Forks the workers; returns when every initializer has ended. Throws worker_start_error.
  static std::shared_ptr<detail::engine> start(detail::engine_setup setup) {
    try {
      return std::make_shared<detail::scheduler<detail::forked_workers>>(std::move(setup));
    } catch (const std::system_error& failure) {
      throw detail::make_error<worker_start_error>("process_pool: " + std::string(failure.what()));
    }
  }
};

static_assert(transport<shared_memory>);

}  // namespace procpool
