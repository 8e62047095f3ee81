// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/posix/spin.hpp>

namespace procpool::detail {

/// What lets a thread that waits expect to wait longer than for a worker that is at work.
struct look_ahead {
  std::size_t copied = 0;  ///< bytes that workers are likely to copy meanwhile
  steady_time woken{};     ///< when a worker that slept was woken last
  bool together = false;   ///< it comes of many elements, of which nobody waits for one more than for another
};

/// How a leader sleeps: until there is something to settle, or for a moment though there is.
enum class resting { until_news, for_a_moment };

/// Waits until `done()`; false if the deadline passed first. `help()` does of the awaited work what this thread can do
/// and says whether there was some; `sleep()` blocks until something may have changed or the deadline has passed.
/// A tiny task is back within microseconds, so this thread looks for its result itself before it sleeps, and says so:
/// `watch(true)` before it looks, `watch(false)` before it sleeps or goes on. `rest(how)` is a sleep while it watches, false
/// if that cannot be: what takes long and comes of many elements is not looked for all the time, as each look takes a cache
/// line from a worker that writes to it with every element, if not the processor.
template <class Done, class Help, class Sleep, class Watch, class Rest>
bool help_until(Done&& done, Help&& help, steady_time deadline, Sleep&& sleep, Watch watch, Rest&& rest,
                look_ahead expected = {}) {
  constexpr std::chrono::microseconds spinning{2};
  constexpr std::chrono::microseconds yielding{50};
  constexpr std::chrono::microseconds waking_up{100};  // another processor that sleeps, most times
  constexpr std::chrono::milliseconds long_wait{1};
  const auto usual = yielding + time_to_copy(expected.copied);
  struct watching {
    explicit watching(Watch& tell) : tell_(tell) { tell_(true); }
    watching(const watching&) = delete;
    watching& operator=(const watching&) = delete;
    ~watching() { tell_(false); }
    Watch& tell_;
  };
  if (done()) return true;
  std::optional<watching> looking(std::in_place, watch);
  const steady_time begun = std::chrono::steady_clock::now();
  steady_time start = begun;
  const steady_time awake = expected.woken + waking_up;
  for (;;) {
    const bool helped = help();
    if (done()) return true;
    const steady_time now = std::chrono::steady_clock::now();
    if (now >= deadline) return false;
    if (helped) {
      start = now;
      if (expected.together && now - begun > long_wait) rest(resting::for_a_moment);
    } else if (now - start < spinning) {
      cpu_pause();
    } else if (now - start < usual || now < awake) {
      ::sched_yield();
    } else if (!rest(resting::until_news)) {
      looking.reset();
      sleep();
      if (done()) return true;
      looking.emplace(watch);
    }
    if (done()) return true;
  }
}

}  // namespace procpool::detail
