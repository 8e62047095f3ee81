// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <utility>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/scheduler/crew.hpp>
#include <procpool/detail/scheduler/worker_record.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>

namespace procpool::detail {

/// While anything is awaited the collector looks every so often, whether anybody rings or not, and wakes those it waits
/// for: a ring may be lost with the worker that was to ring, and what a worker says of itself may have been overwritten.
/// Every member is called under the scheduler's mutex.
template <worker_transport Workers>
class heartbeat {
 public:
  heartbeat(Workers& workers, const crew<Workers>& crew) : workers_(workers), crew_(crew) {}

  /// Something is about to be posted. True if the collector sleeps until somebody rings, and is to be told.
  bool submitted() noexcept {
    submitted_ = true;
    return !std::exchange(ticking_, true);
  }

  /// Returns when to look again.
  steady_time tick(steady_time now, bool anything_queued) noexcept {
    const bool due = now >= next_;
    if (due) next_ = now + interval;
    ticking_ = std::exchange(submitted_, false) || anything_queued;
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      if (!awaited(i)) continue;
      ticking_ = true;
      if (due) workers_.at(i).wake_in_any_case();
    }
    return ticking_ ? next_ : no_deadline;
  }

 private:
  static constexpr auto interval = std::chrono::milliseconds(100);

  /// Something is to come from this worker: a reply, or that it is ready or has left.
  bool awaited(std::size_t i) const noexcept {
    return !workers_.at(i).empty() || (crew_[i].has_process() && crew_[i].now != worker_record::phase::ready);
  }

  Workers& workers_;
  const crew<Workers>& crew_;
  bool submitted_ = false;  ///< since the last tick
  bool ticking_ = false;
  steady_time next_{};
};

}  // namespace procpool::detail
