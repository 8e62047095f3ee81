// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/job.hpp>

namespace procpool::detail {

enum class post_result {
  posted,
  full,       ///< no room now: again once something has been settled
  too_large,  ///< no room even in an empty lane
};

/// The parent's end of the connection to one worker, as the scheduler needs it. Elements are numbered in the order in
/// which they are posted; the posting members are called under the scheduler's mutex, quiet(), next_reply() and taken()
/// by the thread that has the collecting role, settle() by that thread under the mutex, the rest by either.
template <class Port>
concept worker_port =
    requires(Port port, const Port seen, chunk what, std::uint64_t number, bookkeeping_vector<chunk> chunks) {
      { port.post(what) } -> std::same_as<post_result>;
      { port.take_back(number, chunks) } -> std::same_as<bool>;
      port.take_all(chunks, chunks);
      port.reading(number);
      port.settle(number, chunks);
      port.leave();
      port.request_stop(number);
      { port.wake() } -> std::same_as<bool>;
      { port.asleep(afterwards::goes_on) } -> std::same_as<bool>;
      port.wake_in_any_case();
      port.close();
      { seen.last() } -> std::same_as<std::uint64_t>;
      { seen.settled() } -> std::same_as<std::uint64_t>;
      { seen.claimed() } -> std::same_as<std::uint64_t>;
      { seen.running() } -> std::same_as<std::optional<std::uint64_t>>;
      { seen.started(number) } -> std::same_as<std::optional<steady_time>>;
      { seen.outstanding() } -> std::same_as<std::size_t>;
      { seen.empty() } -> std::same_as<bool>;
      { seen.find(number) } -> std::same_as<std::pair<const chunk*, std::size_t>>;
      { seen.quiet() } -> std::same_as<bool>;
      { seen.published(number, number) } -> std::same_as<std::optional<std::uint64_t>>;
      port.next_reply(number);
      port.taken(number);
      { seen.carried() } -> std::same_as<std::size_t>;
      { seen.initialized() } -> std::same_as<bool>;
      { seen.outgrown() } -> std::same_as<bool>;
      { seen.left() } -> std::same_as<bool>;
      { seen.failure() } -> std::same_as<std::string>;
      { seen.report() } -> std::same_as<crash_report>;
      { seen.busy(std::chrono::steady_clock::now()) } -> std::same_as<std::chrono::nanoseconds>;
      port.set_sleeping(std::uint32_t{});
    };

/// What starts workers, carries chunks to them and replies back, and tells of their ends; it knows nothing of what the
/// bytes mean. The other half of a transport (transport/transport.hpp) whose workers are processes.
template <class Workers>
concept worker_transport = worker_port<typename Workers::port> &&
                           requires(Workers workers, std::size_t lane, std::uint64_t generation, steady_time deadline) {
                             { workers.size() } -> std::same_as<std::size_t>;
                             { workers.processors() } -> std::same_as<std::size_t>;
                             { workers.at(lane) } -> std::same_as<typename Workers::port&>;
                             workers.spawn(lane, generation);
                             workers.stand_by();
                             workers.kill(lane, generation);
                             { workers.has_spare_lane() } -> std::same_as<bool>;
                             workers.set_aside(lane);
                             { workers.memory_for_arguments() } -> std::convertible_to<large_memory*>;
                             workers.sleep(deadline);
                             workers.wake();
                             { workers.rest(deadline) } -> std::same_as<bool>;
                             workers.rouse();
                             workers.depart();
                             workers.hang_up();
                             workers.release();
                             workers.stop();
                           };

}  // namespace procpool::detail
