// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <chrono>
#include <mutex>

namespace procpool::detail {

/// Tells the processor that this is a spin loop.
inline void cpu_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

/// How long to look before a sleep: for about as long as a sleep and its wake-up cost, or, where the last wait was much
/// longer, and the next is likely to be, for a moment.
enum class patience { usual, little };

/// Looks at `condition`: a short while on the processor, then giving it away between looks, so that a spinning thread
/// never keeps the one that it waits for from running. False if it does not hold in time.
template <class Condition>
bool spin_until(Condition condition, patience how = patience::usual) {
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
    if (spent > (how == patience::usual ? spinning : pausing)) return false;
    if (spent > pausing) ::sched_yield();
  }
}

/// Locks what others hold for a few microseconds at most: to sleep until it is free, and to be woken, costs both sides
/// more than to look again.
template <class Mutex>
std::unique_lock<Mutex> lock_soon(Mutex& mutex) {
  std::unique_lock lock(mutex, std::try_to_lock);
  for (int looks = 0; looks != 50 && !lock; ++looks) {
    cpu_pause();
    static_cast<void>(lock.try_lock());
  }
  if (!lock) lock.lock();
  return lock;
}

}  // namespace procpool::detail
