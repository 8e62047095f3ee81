// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace procpool::detail {

/// Held by the one thread that reads replies and hears of deaths: the collector, or a thread that waits for a result and
/// looks for it itself. Decoding runs code of the user, which may come back: a thread never waits for itself.
class collecting_role {
 public:
  bool mine() const noexcept { return holder_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }

  void lock() {
    mutex_.lock();
    holder_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  }
  /// Holds nothing where this thread has the role already.
  std::unique_lock<collecting_role> lock_unless_mine() {
    return mine() ? std::unique_lock<collecting_role>() : std::unique_lock(*this);
  }
  bool try_lock() {
    if (mine() || !mutex_.try_lock()) return false;
    holder_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    return true;
  }
  void unlock() {
    holder_.store(std::thread::id(), std::memory_order_relaxed);
    mutex_.unlock();
  }

 private:
  std::mutex mutex_;
  std::atomic<std::thread::id> holder_{};
};

}  // namespace procpool::detail
