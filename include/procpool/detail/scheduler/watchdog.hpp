// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/scheduler/crew.hpp>
#include <procpool/detail/scheduler/leftovers.hpp>
#include <procpool/detail/scheduler/task_table.hpp>
#include <procpool/detail/scheduler/worker_record.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>

namespace procpool::detail {

/// Ends elements that run: those that are cancelled, and those that have run past their time limit. First the lane's limit
/// is lowered to the element, so that the kill, which takes its time, can never meet the next one; then the worker is asked
/// to stop, if there is grace, and killed. Until the element has ended the worker is under that sentence and gets nothing.
/// Every member is called under the scheduler's mutex.
template <worker_transport Workers>
class watchdog {
 public:
  watchdog(Workers& workers, crew<Workers>& crew, task_table<Workers>& table)
      : workers_(workers), crew_(crew), table_(table) {}

  /// Has every element of `target` that runs end in task_cancelled. True if there is one. `next`: lowered to when to look.
  bool cancel(const job& target, steady_time now, steady_time& next, leftovers& done) {
    bool any = false;
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      if (!watched(i)) continue;
      const auto number = workers_.at(i).running();
      if (!number || element(i, *number).target.get() != &target) continue;
      worker_record& record = crew_[i];
      if (record.under.number == 0) {
        if (!condemn(i, *number, end_cause::cancelled, now, next, done)) continue;
      } else {
        record.under.why = end_cause::cancelled;
        record.under.overrules = true;
      }
      any = true;
    }
    return any;
  }

  /// Does what is due. Returns when to look again.
  steady_time tend(steady_time now, leftovers& done) {
    steady_time next = no_deadline;
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      if (workers_.at(i).empty()) crew_[i].head = 0;
      if (!watched(i) || workers_.at(i).empty()) continue;
      if (crew_[i].under.number != 0) {
        next = std::min(next, tend_sentence(i, now));
      } else if (!crew_[i].killed()) {
        next = std::min(next, look_at(i, now, done));
      }
    }
    return next;
  }

 private:
  /// How long a worker may leave an element lying that it could start, beyond the element's time limit if that has one. It
  /// has been stopped, or what it says of itself has been overwritten: nothing that it was given would ever end.
  static constexpr auto longest_silence = std::chrono::seconds(5);

  bool watched(std::size_t i) const noexcept { return crew_[i].alive() && !crew_[i].malformed; }
  const chunk& element(std::size_t i, std::uint64_t number) const noexcept {
    return *workers_.at(i).find(number).first;
  }

  /// False if the element has ended meanwhile.
  bool condemn(std::size_t i, std::uint64_t number, end_cause why, steady_time now, steady_time& next,
               leftovers& done) {
    const std::chrono::nanoseconds grace = element(i, number).target->limits.grace;
    if (!table_.recall(i, number, done) || workers_.at(i).running() != number) return false;
    auto& under = crew_[i].under;
    under = {.number = number, .why = why, .overrules = why == end_cause::cancelled || grace.count() != 0};
    if (grace.count() == 0) {
      kill(i);
    } else {
      under.kill_at = later(now, grace);
      next = std::min(next, under.kill_at);
      workers_.at(i).request_stop(number);
    }
    return true;
  }

  void kill(std::size_t i) noexcept {
    crew_[i].under.kill_at = no_deadline;
    crew_.kill(i, crew_[i].under.why == end_cause::cancelled ? "its task was cancelled" : "its task ran out of time");
  }

  steady_time tend_sentence(std::size_t i, steady_time now) noexcept {
    const auto& under = crew_[i].under;
    if (now < under.kill_at) return under.kill_at;
    // It had started, whatever it says by now.
    const auto& port = workers_.at(i);
    const auto published = port.published(port.settled(), port.last());
    if (!published || *published < under.number) kill(i);  // else it has returned in time
    return no_deadline;
  }

  /// Looks whether what runs has run out of time.
  steady_time look_at(std::size_t i, steady_time now, leftovers& done) {
    const auto& port = workers_.at(i);
    steady_time next = no_deadline;  // whatever is started from now on
    port.for_each_posted([&](const chunk& each, std::uint64_t) {
      if (each.target->limits.timeout.count() != 0) next = std::min(next, later(now, each.target->limits.timeout));
    });
    const auto running = port.running();
    const std::uint64_t head = running.value_or(port.settled() + 1);
    const std::chrono::nanoseconds timeout = element(i, head).target->limits.timeout;
    worker_record& record = crew_[i];
    if (record.head != head) {
      record.head = head;
      record.head_since = now;
      record.head_runs_since = no_deadline;
    }
    if (running) record.head_runs_since = std::min(record.head_runs_since, now);
    if (!running) return look_at_silent(i, head, later(later(record.head_since, timeout), longest_silence), now, next);
    if (timeout.count() == 0) return next;
    const steady_time expiry = later(std::min(record.head_runs_since, port.started(head).value_or(now)), timeout);
    if (now < expiry) return std::min(next, expiry);
    return condemn(i, head, end_cause::timed_out, now, next, done) ? next : now;
  }

  steady_time look_at_silent(std::size_t i, std::uint64_t head, steady_time expiry, steady_time now, steady_time next) {
    if (now < expiry) return std::min(next, expiry);
    // It may have run all the same: where there is a limit it counts as run out of time, else it is run elsewhere.
    if (element(i, head).target->limits.timeout.count() != 0) {
      crew_[i].under = {.number = head, .why = end_cause::timed_out, .overrules = true};
    }
    crew_.kill(i, "it did not start what it was given");
    return next;
  }

  Workers& workers_;
  crew<Workers>& crew_;
  task_table<Workers>& table_;
};

}  // namespace procpool::detail
