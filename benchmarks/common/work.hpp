// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "common/report.hpp"
#include "common/timing.hpp"

namespace bench {

inline int increment(int x) { return x + 1; }

/// Work for the processor alone: multiplications, each of which needs the one before it. Touches no memory.
inline std::uint64_t burn(std::uint64_t steps) {
  std::uint64_t x = steps;
  for (std::uint64_t i = 0; i != steps; ++i) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    asm volatile("" : "+r"(x));
  }
  return x;
}

/// The steps of burn() that take a millisecond alone, by the best of some tries.
inline std::uint64_t steps_of_a_millisecond() {
  constexpr std::uint64_t steps = 200'000;
  double best = std::numeric_limits<double>::max();
  for (int i = 0; i != 9; ++i) {
    const stopwatch since;
    keep(burn(steps));
    best = std::min(best, since.ms());
  }
  return static_cast<std::uint64_t>(static_cast<double>(steps) / best);
}

/// Milliseconds that so many tasks of `steps` take one after the other; of a quarter of them, as it only calibrates.
inline double serial_ms(std::size_t tasks, std::uint64_t steps) {
  const std::size_t some = std::max<std::size_t>(1, tasks / 4);
  const stopwatch since;
  for (std::size_t i = 0; i != some; ++i) keep(burn(steps));
  return since.ms() * static_cast<double>(tasks) / static_cast<double>(some);
}

/// How well `run`, which does `tasks` of `steps` on two processors, uses them: 1 is half the serial time, which is
/// taken right before and after.
template <class Run>
double efficiency_of_two(std::size_t tasks, std::uint64_t steps, Run run) {
  const double before = serial_ms(tasks, steps);
  const stopwatch since;
  run();
  const double taken = since.ms();
  const double after = serial_ms(tasks, steps);
  return (before + after) / 2 / taken / 2;
}

/// How many tasks of a millisecond J5 has, and J7 beside the long one, which takes half as long as all of them.
inline std::size_t tasks_of_efficiency() { return scaled<std::size_t>(2000, 20); }
inline std::size_t tasks_of_skew() { return scaled<std::size_t>(1000, 20); }

/// The time of `run` for one task of n/2 milliseconds among n of one, as a multiple of what two processors need that
/// take them in order: the long one begins when the `place` short ones before it are done, and all work takes its time.
template <class Run>
double makespan_of_two(std::size_t tasks, std::size_t place, std::uint64_t steps, Run run) {
  const std::size_t some = std::min<std::size_t>(tasks, 100);
  const double before = serial_ms(some, steps) / static_cast<double>(some);
  const stopwatch since;
  run();
  const double taken = since.ms();
  const double after = serial_ms(some, steps) / static_cast<double>(some);
  const double ideal = std::max(0.75 * static_cast<double>(tasks), static_cast<double>(place + tasks) / 2);
  return taken / (ideal * (before + after) / 2);
}

}  // namespace bench
