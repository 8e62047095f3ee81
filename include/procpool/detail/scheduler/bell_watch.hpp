// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>

namespace procpool::detail {

/// Whether workers are to ring when they publish, and for whom: for the leader (engine::lead), while it sleeps; else for
/// the collector, while it sleeps and something is expected; and not at all while a thread looks at the lanes all the time.
/// Each such sleep is a turn with a number of its own, even for the collector, odd for the leader, and a worker rings once
/// a turn.
template <worker_transport Workers>
class bell_watch {
 public:
  explicit bell_watch(Workers& workers) : workers_(workers) {}

  /// The collector is about to look at the lanes for the last time before it sleeps.
  void fall_asleep() noexcept {
    const std::lock_guard lock(mutex_);
    collector_ = next_turn(0);
    if (watchers_ == 0 && leader_ == 0) tell(collector_);
  }
  void wake_up() noexcept {
    const std::lock_guard lock(mutex_);
    collector_ = 0;
    if (leader_ == 0) tell(0);
  }

  /// The leader, which watches, is about to look for the last time before it sleeps. Until rise() it does not watch.
  void rest() noexcept {
    const std::lock_guard lock(mutex_);
    --watchers_;
    leader_ = next_turn(1);
    if (watchers_ == 0) tell(leader_);
  }
  void rise() noexcept {
    const std::lock_guard lock(mutex_);
    ++watchers_;
    leader_ = 0;
    tell(0);
  }

  /// Something is about to be posted. Under the scheduler's mutex, as expect_nothing().
  void expect(afterwards next) noexcept {
    expecting_.store(true, std::memory_order_relaxed);
    if (next == afterwards::watches || std::exchange(announced_, true)) return;
    const std::lock_guard lock(mutex_);
    if (watchers_ == 0 && leader_ == 0 && collector_ != 0) tell(collector_);
  }
  /// All that was posted is settled.
  void expect_nothing() noexcept {
    expecting_.store(false, std::memory_order_relaxed);
    announced_ = false;
  }

  /// A thread begins, or ends, to look at the lanes all the time. True if it was the last, and whoever sleeps now is to
  /// hear of something: what was published without a ring is the caller's to settle.
  bool watch(bool whether) noexcept {
    const std::lock_guard lock(mutex_);
    watchers_ += whether ? 1 : -1;
    if (watchers_ != (whether ? 1 : 0)) return false;
    if (whether) {
      tell(0);
      return false;
    }
    // If this misses that something is expected, expect() comes later and tells.
    const std::uint32_t turn = leader_ != 0 ? leader_ : expecting_.load(std::memory_order_relaxed) ? collector_ : 0;
    tell(turn);
    return turn != 0;
  }

 private:
  /// One that was not used before, or too long ago to matter; not 0, which says that nobody sleeps.
  std::uint32_t next_turn(std::uint32_t whose) noexcept {
    turn_ += turn_ == ~std::uint32_t{1} ? 4 : 2;
    return turn_ + whose;
  }

  /// Afterwards, whatever a worker publishes it either rings for, or whoever looks at `published` next sees it.
  void tell(std::uint32_t turn) noexcept {
    if (told_ == turn) return;
    told_ = turn;
    for (std::size_t i = 0; i != workers_.size(); ++i) workers_.at(i).set_sleeping(turn);
  }

  Workers& workers_;
  std::atomic<bool> expecting_{false};
  bool announced_ = false;       ///< since nothing was expected, by one that goes on; under the scheduler's mutex
  std::mutex mutex_;             ///< taken last
  std::uint32_t turn_ = 0;       ///< the last one, less whose it was
  std::uint32_t collector_ = 0;  ///< its turn while it sleeps, or 0
  std::uint32_t leader_ = 0;     ///< the same
  std::uint32_t told_ = 0;       ///< what the workers have been told last
  int watchers_ = 0;
};

}  // namespace procpool::detail
