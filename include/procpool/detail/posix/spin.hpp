// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
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

/// How much longer to look where the other side copies so many bytes meanwhile: as long as that takes a slow memory, up to
/// where a sleep costs little in comparison.
constexpr std::chrono::nanoseconds time_to_copy(std::size_t bytes) noexcept {
  constexpr std::size_t most_ns = 300'000;
  constexpr std::size_t bytes_per_ns = 4;
  return std::chrono::nanoseconds(std::min(bytes / bytes_per_ns, most_ns));
}

/// Looks at `condition`: a short while on the processor, then giving it away between looks, so that a spinning thread
/// never keeps the one that it waits for from running. False if it does not hold in time, or `in_the_way(spent)` when it
/// is about to give the processor away, after that time. `copied`: the bytes that the other side is likely to copy before
/// it holds.
template <class Condition, class InTheWay>
bool spin_until(Condition condition, patience how, std::size_t copied, InTheWay in_the_way) {
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
    if (spent > (how == patience::usual ? spinning : pausing) + time_to_copy(copied)) return false;
    if (spent <= pausing) continue;
    if (in_the_way(spent)) return false;
    ::sched_yield();
  }
}
template <class Condition>
bool spin_until(Condition condition) {
  return spin_until(condition, patience::usual, 0, [](auto) { return false; });
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
