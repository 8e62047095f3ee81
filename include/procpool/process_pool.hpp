// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/keep_for_ever.hpp>
#include <procpool/error.hpp>
#include <procpool/fwd.hpp>
#include <procpool/options.hpp>
#include <procpool/shared_array.hpp>
#include <procpool/submitter.hpp>
#include <procpool/transport/shared_memory.hpp>
#include <procpool/transport/transport.hpp>

namespace procpool {

/// A fixed number of workers that run the tasks submitted to it; the members that submit are those of `submitter`.
/// The workers are forked from what the program is when the pool is constructed: a task sees that, whatever happens
/// in the program later. A worker that dies costs the task it was running, and is replaced.
/// Blocks   all members may be called in several threads at once.
/// Errors   std::logic_error from every member that can throw, in a process that did not construct the pool.
/// Source   Python's multiprocessing.pool.Pool, concurrent.futures.ProcessPoolExecutor.
template <class Transport = shared_memory>
class process_pool : public submitter {
  static_assert(transport<Transport>,
                "procpool: Transport must model procpool::transport (procpool/transport/transport.hpp); use "
                "procpool::shared_memory or procpool::in_process");

 public:
  /// One worker per CPU that this process may use.
  /// Errors   `worker_start_error`: a worker could not be started, or its initializer threw. No process is left behind.
  process_pool() : process_pool(pool_options{}) {}

  /// Errors   std::invalid_argument for less than one worker; else as above.
  explicit process_pool(std::integral auto processes)
      : process_pool(pool_options{.processes = checked_count(processes)}) {}

  /// Errors   as above.
  explicit process_pool(pool_options options)
      : submitter(Transport::start(detail::make_engine_setup(std::move(options))), call_options{}) {}

  /// Runs `initializer(initargs...)` in every worker, also in replacements, before its first task. Initializer and
  /// arguments are part of what the workers are forked from: nothing is encoded.
  /// Blocks   until every initializer has ended.
  /// Errors   as above.
  template <class Init, class... Args>
    requires std::invocable<Init, Args...>
  process_pool(std::integral auto processes, Init initializer, Args... initargs)
      : process_pool(pool_options{.processes = checked_count(processes),
                                  .initializer = bind(std::move(initializer), std::move(initargs)...)}) {}

  process_pool(const process_pool&) = delete;
  process_pool& operator=(const process_pool&) = delete;

  /// close() and join(): no submitted task is dropped. Does nothing in a process that did not construct the pool.
  ~process_pool() {
    if (engine_->owned()) {
      engine_->close();
      engine_->join();
    } else {
      // The engine's threads are not in this process, and its workers are not its to end: nothing of it may be
      // destroyed here, not even a std::thread object.
      detail::keep_for_ever(std::move(engine_));
    }
  }

  /// The submitting members with these options: `pool.with({.timeout = 5s, .retries = 2}).map(parse, paths)`.
  /// Errors   std::invalid_argument for a negative duration; `not_supported` for what the transport cannot do.
  submitter with(call_options options) {
    if (options.timeout.count() < 0 || options.grace.count() < 0) {
      throw std::invalid_argument(std::string("procpool: with: ") +
                                  (options.timeout.count() < 0 ? "timeout" : "grace") + " is negative");
    }
    if (!Transport::limits_tasks && options.timeout.count() != 0) {
      throw detail::make_error<not_supported>("with: timeout: with this transport there is no worker to be killed");
    }
    return submitter(engine_, std::move(options));
  }

  /// No new tasks from now on; submitted ones finish.
  void close() noexcept {
    if (engine_->owned()) engine_->close();
  }

  /// Kills the workers now. When it returns every future is ready: in `pool_terminated` if its task had not finished.
  void terminate() noexcept {
    if (engine_->owned()) engine_->terminate();
  }

  /// Blocks   until all workers and helpers are gone and due callbacks have run; inside a callback it does not wait for
  ///          callbacks.
  /// Errors   std::logic_error unless the pool was closed or terminated.
  void join() {
    engine_->require_owned("join");
    engine_->join();
  }

  /// How many workers the pool keeps.
  std::size_t processes() const noexcept { return engine_->processes(); }

  /// What the workers and their tasks are at, as one snapshot.
  pool_stats stats() const {
    engine_->require_owned("stats");
    return engine_->stats();
  }

  /// `n` elements, all zero, in memory that tasks share: see procpool::make_shared_array.
  template <class T>
  shared_array<T> make_shared_array(std::size_t n) {
    engine_->require_owned("make_shared_array");
    return procpool::make_shared_array<T>(n);
  }

 private:
  static int checked_count(std::integral auto processes) {
    const auto count = +processes;  // no character type or bool: std::in_range takes none
    if (!std::in_range<int>(count) || count < 1) {
      throw std::invalid_argument("procpool: process_pool: processes is " + std::to_string(count) +
                                  ", it must be at least 1 and an int");
    }
    return static_cast<int>(count);
  }

  /// Each process calls it once, so what it holds is moved into the call. std::function wants to be copied: shared.
  template <class Init, class... Args>
  static std::function<void()> bind(Init initializer, Args... initargs) {
    auto call = std::make_shared<std::tuple<Init, Args...>>(std::move(initializer), std::move(initargs)...);
    return [call = std::move(call)] {
      std::apply([](Init& init, Args&... args) { std::invoke(std::move(init), std::move(args)...); }, *call);
    };
  }
};

process_pool() -> process_pool<shared_memory>;

}  // namespace procpool
