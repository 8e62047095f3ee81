// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/scheduler/crew.hpp>
#include <procpool/detail/scheduler/worker_set.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>

namespace procpool::detail {

/// In a pool of more workers than processors, while one tiny task follows the other: has as few workers run them as keep
/// the processors busy. To wake one more costs many times such a task, and it would only run instead of one of those.
/// What waits behind a task that is not tiny after all goes elsewhere within two milliseconds. Every member is called
/// under the scheduler's mutex.
template <worker_transport Workers>
class crowd {
 public:
  crowd(Workers& workers, const crew<Workers>& crew)
      : workers_(workers),
        crew_(crew),
        processors_(workers.processors()),
        records_(there_may_be_one() ? crew.size() : 0) {}

  void posted(std::size_t i) {
    if (!there_may_be_one() || at_work_.contains(i)) return;
    at_work_.insert(i);
    records_[i].claimed = unknown;
  }

  /// Worker `i` has ended so many elements since this was called last.
  void ended(std::size_t i, std::size_t elements) noexcept {
    if (!there_may_be_one() || elements == 0) return;
    const std::chrono::nanoseconds busy = workers_.at(i).busy(std::chrono::steady_clock::now());
    const bool were_tiny = busy - std::exchange(records_[i].busy, busy) < static_cast<std::int64_t>(elements) * tiny;
    in_a_row_ = were_tiny ? std::min(in_a_row_ + elements, many) : 0;
  }

  /// Whether those that have something to do are enough for all there is. If so, the scheduler is to look by `look_by`.
  bool enough(steady_time& look_by) {
    if (in_a_row_ < many) return false;
    at_work_.erase_if([this](std::size_t i) { return !crew_[i].alive() || workers_.at(i).empty(); });
    if (at_work_.size() < processors_) return false;
    if (!watched_) watch(std::chrono::steady_clock::now());
    look_by = std::min(look_by, look_at_);
    return true;
  }

  /// Of those, one that has least to do and may take more, or crew::size().
  template <class Predicate>
  std::size_t least_busy(Predicate may_take) const {
    std::size_t best = crew_.size();
    std::size_t least = std::numeric_limits<std::size_t>::max();
    at_work_.for_each([&](std::size_t i) {
      const std::size_t outstanding = workers_.at(i).outstanding();
      if (outstanding >= least || !may_take(i)) return;
      least = outstanding;
      best = i;
    });
    return best;
  }

  /// Returns when to look again. `recall(i)` takes from worker `i`, which has not got on since the last look, what waits
  /// behind the task that it runs. Where none has got on, tasks are not tiny any more.
  template <class Recall>
  steady_time tend(steady_time now, bool anything_queued, Recall recall) {
    if (!watched_ || now < look_at_) return watched_ ? look_at_ : no_deadline;
    watched_ = false;
    bool any_waits = anything_queued;
    bool any_gets_on = false;
    worker_set stuck;
    at_work_.for_each([&](std::size_t i) {
      const auto& port = workers_.at(i);
      if (port.empty()) return;
      if (port.outstanding() > 1) any_waits = true;
      if (port.claimed() != records_[i].claimed) {
        any_gets_on = true;
      } else {
        stuck.insert(i);
      }
    });
    if (!any_gets_on) in_a_row_ = 0;
    at_work_.erase_if([&](std::size_t i) { return stuck.contains(i); });
    stuck.for_each(recall);
    if (any_gets_on && any_waits) watch(now);
    return watched_ ? look_at_ : no_deadline;
  }

 private:
  static constexpr std::chrono::microseconds tiny{10};
  static constexpr std::size_t many = 64;
  static constexpr std::chrono::milliseconds interval{1};

  static constexpr std::uint64_t unknown = std::numeric_limits<std::uint64_t>::max();
  struct record {
    std::chrono::nanoseconds busy{};  ///< what it said when it had ended something
    std::uint64_t claimed = unknown;  ///< the element that it was at when it was looked at
  };

  bool there_may_be_one() const noexcept { return crew_.size() > processors_; }

  void watch(steady_time now) noexcept {
    watched_ = true;
    look_at_ = now + interval;
    at_work_.for_each([this](std::size_t i) { records_[i].claimed = workers_.at(i).claimed(); });
  }

  Workers& workers_;
  const crew<Workers>& crew_;
  const std::size_t processors_;
  std::vector<record> records_;
  worker_set at_work_{};      ///< those that have something to do, but for stuck ones; and some that have not any more
  std::size_t in_a_row_ = 0;  ///< tiny tasks, as far as it matters
  bool watched_ = false;      ///< something may wait behind others that need not
  steady_time look_at_{};
};

}  // namespace procpool::detail
