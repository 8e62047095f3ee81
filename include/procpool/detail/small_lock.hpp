// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <atomic>

namespace procpool::detail {

/// A lock of one byte, for a few instructions of one process that are seldom contended.
class small_lock {
 public:
  void lock() noexcept {
    while (locked_.exchange(true, std::memory_order_acquire)) ::sched_yield();
  }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

}  // namespace procpool::detail
