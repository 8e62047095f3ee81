// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>

namespace procpool::detail {

/// Every wait of the library is measured on the monotonic clock, as an absolute time.
using steady_time = std::chrono::steady_clock::time_point;
inline constexpr steady_time no_deadline = steady_time::max();

/// The time `timeout` from now: at once for what is not positive (NaN included), `no_deadline` for what is past the
/// clock's range. Sums in the caller's units could overflow; these cannot.
template <class Rep, class Period>
steady_time deadline_after(std::chrono::duration<Rep, Period> timeout) {
  const steady_time now = std::chrono::steady_clock::now();
  const std::chrono::duration<long double> wanted(timeout);
  if (!(wanted > wanted.zero())) return now;
  if (wanted >= std::chrono::duration<long double>(no_deadline - now)) return no_deadline;
  return now + std::chrono::ceil<std::chrono::steady_clock::duration>(timeout);
}

/// `wait` after `start`, or no_deadline if that is past the clock's range.
inline steady_time later(steady_time start, std::chrono::nanoseconds wait) noexcept {
  return wait >= no_deadline - start ? no_deadline : start + wait;
}

/// How long it is until `when` by its own clock, as a deadline.
template <class Clock, class Duration>
steady_time deadline_at(std::chrono::time_point<Clock, Duration> when) {
  // In long double, as when - now() may be past the range of both types' common one.
  const std::chrono::duration<long double> then(when.time_since_epoch());
  const std::chrono::duration<long double> now(Clock::now().time_since_epoch());
  return deadline_after(then - now);
}

}  // namespace procpool::detail
