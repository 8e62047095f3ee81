// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <chrono>

namespace procpool::detail {

/// Tells the processor that this is a spin loop.
inline void cpu_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

/// Looks at `condition` for about as long as a sleep and its wake-up would cost: a short while on the processor, then
/// giving it away between looks, so that a spinning thread never keeps the one that it waits for from running.
template <class Condition>
bool spin_until(Condition condition) {
  using clock = std::chrono::steady_clock;
  constexpr auto pausing = std::chrono::microseconds(2);
  constexpr auto spinning = std::chrono::microseconds(50);
  const auto start = clock::now();
  for (;;) {
    for (int looks = 0; looks != 16; ++looks) {
      if (condition()) return true;
      cpu_pause();
    }
    const auto spent = clock::now() - start;
    if (spent > spinning) return false;
    if (spent > pausing) ::sched_yield();
  }
}

}  // namespace procpool::detail
