// SPDX-License-Identifier: BSL-1.0
// The least that a round trip between two processes costs: two cache lines that each of them looks at without end, or
// two words that each sleeps on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "common/cpus.hpp"
#include "common/memory.hpp"
#include "common/report.hpp"
#include "common/timing.hpp"
#include "floors/child.hpp"

namespace bench {

struct spinning {
  static void post(futex_word& word, std::uint32_t number) { word.store(number, std::memory_order_release); }
  static void wait(futex_word& word, std::uint32_t number) {
    while (word.load(std::memory_order_acquire) != number) {
    }
  }
};
struct sleeping {
  static void post(futex_word& word, std::uint32_t number) {
    word.store(number);
    futex_wake(word);
  }
  static void wait(futex_word& word, std::uint32_t number) {
    while (word.load() != number) futex_wait(word, number - 1);
  }
};

/// Round trips in nanoseconds, with a pause before each. The parent runs on CPU `here`, the child on CPU `there`.
template <class How>
samples ping_pong(int trips, int here, int there, std::chrono::nanoseconds pause = {}) {
  struct words {
    alignas(128) futex_word there{0};
    alignas(128) futex_word back{0};
  };
  const shared<words> line;
  const auto total = static_cast<std::uint32_t>(trips + trips / 10 + 10);
  const pid_t child = fork_child([&] {
    pin(there);
    for (std::uint32_t i = 1; i <= total; ++i) {
      How::wait(line->there, i);
      How::post(line->back, i);
    }
  });
  const unpin_at_end restore;
  pin(here);
  samples ns;
  for (std::uint32_t i = 1; i <= total; ++i) {
    if (pause.count() != 0) compute_for(pause);
    const stopwatch since;
    How::post(line->there, i);
    How::wait(line->back, i);
    if (i + static_cast<std::uint32_t>(trips) > total) ns.add(since.ns());
  }
  reap(child);
  return ns;
}

/// On two CPUs, if there are two.
template <class How>
void emit_cross_floor(const std::string& impl, const std::string& job, int trips, std::chrono::nanoseconds pause = {}) {
  const std::vector<int> cpus = usable_cpus();
  if (cpus.size() >= 2) emit_latency(impl, job, ping_pong<How>(trips, cpus[0], cpus[1], pause));
}
inline void emit_spin_floor() { emit_cross_floor<spinning>("floor:spin", "pp-cross", scaled(20'000, 100)); }

}  // namespace bench
