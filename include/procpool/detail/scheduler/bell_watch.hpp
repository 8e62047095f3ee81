// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>

namespace procpool::detail {

/// Whether workers are to ring when they publish: only while the collector sleeps, something is expected, and no other
/// thread looks at the lanes all the time. Each sleep of the collector is a turn with a number of its own, and a worker
/// rings once a turn.
template <worker_transport Workers>
class bell_watch {
 public:
  explicit bell_watch(Workers& workers) : workers_(workers) {}

  /// The collector is about to look at the lanes for the last time before it sleeps.
  void fall_asleep() noexcept {
    const std::lock_guard lock(mutex_);
    turn_ += turn_ == ~std::uint32_t{0} ? 2 : 1;  // 0 says that nobody sleeps
    asleep_ = true;
    if (watchers_ == 0) tell(turn_);
  }
  void wake_up() noexcept {
    const std::lock_guard lock(mutex_);
    asleep_ = false;
    tell(0);
  }

  /// Something is about to be posted. Under the scheduler's mutex, as expect_nothing().
  void expect(afterwards next) noexcept {
    expecting_.store(true, std::memory_order_relaxed);
    if (next == afterwards::watches) return;
    const std::lock_guard lock(mutex_);
    if (asleep_ && watchers_ == 0) tell(turn_);
  }
  /// All that was posted is settled.
  void expect_nothing() noexcept { expecting_.store(false, std::memory_order_relaxed); }

  /// A thread begins, or ends, to look at the lanes all the time. True if it was the last, and the collector sleeps while
  /// something is expected: what was published without a ring is the caller's to settle.
  bool watch(bool whether) noexcept {
    const std::lock_guard lock(mutex_);
    watchers_ += whether ? 1 : -1;
    if (!asleep_ || watchers_ != (whether ? 1 : 0)) return false;
    // If this misses that something is expected, expect() comes later and tells.
    const bool ring = !whether && expecting_.load(std::memory_order_relaxed);
    tell(ring ? turn_ : 0);
    return ring;
  }

 private:
  /// Afterwards, whatever a worker publishes it either rings for, or whoever looks at `published` next sees it.
  void tell(std::uint32_t turn) noexcept {
    if (told_ == turn) return;
    told_ = turn;
    for (std::size_t i = 0; i != workers_.size(); ++i) workers_.at(i).set_sleeping(turn);
  }

  Workers& workers_;
  std::atomic<bool> expecting_{false};
  std::mutex mutex_;  ///< taken last
  std::uint32_t turn_ = 0;
  std::uint32_t told_ = 0;  ///< what the workers have been told last
  bool asleep_ = false;
  int watchers_ = 0;
};

}  // namespace procpool::detail
