// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstdint>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/posix/futex.hpp>

namespace procpool::detail {

/// Lets threads sleep until something may have changed, without a lock around what changes:
///   seen = events.now();  look;  if there is nothing: events.wait(seen, deadline);  look again.
/// Whoever changes something calls notify() afterwards; it costs a system call only if somebody sleeps.
class event_count {
 public:
  std::uint32_t now() const noexcept { return word_.load(std::memory_order_seq_cst) & ~sleepers; }

  void notify() noexcept {
    if ((word_.fetch_add(step, std::memory_order_seq_cst) & sleepers) == 0) return;
    // A thread that goes to sleep from here on either finds the bit gone, and looks again, or is woken.
    word_.fetch_and(~sleepers, std::memory_order_seq_cst);
    futex_wake(word_, futex_scope::process);
  }

  /// Sleeps unless notify() was called after `seen` was taken. May return early.
  void wait(std::uint32_t seen, steady_time deadline) noexcept {
    std::uint32_t found = seen;
    if (!word_.compare_exchange_strong(found, seen | sleepers, std::memory_order_seq_cst) && found != (seen | sleepers))
      return;
    futex_wait(word_, seen | sleepers, deadline, futex_scope::process);
  }

 private:
  static constexpr std::uint32_t sleepers = 1;  // bit 0: somebody sleeps, or is about to
  static constexpr std::uint32_t step = 2;      // the other bits count

  std::atomic<std::uint32_t> word_{0};
};

}  // namespace procpool::detail
