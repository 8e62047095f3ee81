// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>

#include <procpool/detail/deadline.hpp>

namespace procpool::detail {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free && sizeof(std::atomic<std::uint32_t>) == 4,
              "procpool: futex(2) works on 32-bit words");

/// Who may sleep on a word: threads of this process only, which is cheaper, or of all that share its memory.
enum class futex_scope { process, shared };

/// Sleeps while `word` holds `expected`, at the longest until `deadline`. False only if the deadline has passed; true
/// says nothing (a wake, another value, a signal): look again. Keeps errno.
inline bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, steady_time deadline,
                       futex_scope scope) noexcept {
  // FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, which steady_clock is: `futex(2)`.
  timespec until{};
  if (deadline != no_deadline) {
    auto since = deadline.time_since_epoch();
    if (since.count() < 0) since = since.zero();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
    until.tv_sec = static_cast<std::time_t>(seconds.count());
    until.tv_nsec = static_cast<long>(std::chrono::nanoseconds(since - seconds).count());
  }
  const int operation = FUTEX_WAIT_BITSET | (scope == futex_scope::process ? FUTEX_PRIVATE_FLAG : 0);
  const int kept = errno;
  const long result = ::syscall(SYS_futex, &word, operation, expected, deadline == no_deadline ? nullptr : &until,
                                nullptr, FUTEX_BITSET_MATCH_ANY);
  const bool timed_out = result != 0 && errno == ETIMEDOUT;
  errno = kept;
  return !timed_out;
}

/// Wakes up to `count` threads that sleep on `word`; a thread that sleeps with the other scope is not found.
inline void futex_wake(const std::atomic<std::uint32_t>& word, futex_scope scope, int count = INT_MAX) noexcept {
  const int kept = errno;
  const int operation = FUTEX_WAKE | (scope == futex_scope::process ? FUTEX_PRIVATE_FLAG : 0);
  ::syscall(SYS_futex, &word, operation, count, nullptr, nullptr, 0);
  errno = kept;
}

}  // namespace procpool::detail
