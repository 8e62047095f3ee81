// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>

namespace bench {

/// A clock cheap enough for what takes a hundred nanoseconds.
inline std::uint64_t ticks() noexcept {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
}

/// Calibrated once, in 20 ms.
inline double ns_per_tick() {
  static const double value = [] {
    using clock = std::chrono::steady_clock;
    const auto begin = clock::now();
    const std::uint64_t first = ticks();
    while (clock::now() - begin < std::chrono::milliseconds(20)) {
    }
    const std::uint64_t last = ticks();
    return std::chrono::duration<double, std::nano>(clock::now() - begin).count() / static_cast<double>(last - first);
  }();
  return value;
}

class stopwatch {
 public:
  stopwatch() : factor_(ns_per_tick()), begin_(ticks()) {}
  double ns() const { return static_cast<double>(ticks() - begin_) * factor_; }
  double ms() const { return ns() / 1e6; }

 private:
  double factor_;
  std::uint64_t begin_;
};

/// Keeps the processor busy for so long, as a program does that computes between its calls.
inline void compute_for(std::chrono::nanoseconds time) {
  const stopwatch since;
  while (since.ns() < static_cast<double>(time.count())) {
  }
}

/// Keeps the compiler from leaving out what computes `value`.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

}  // namespace bench
