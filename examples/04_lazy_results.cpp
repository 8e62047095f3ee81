// SPDX-License-Identifier: BSL-1.0
//
// Lazy results: imap takes its input, here all natural numbers, only as the loop goes on, never more than `buffersize`
// elements ahead. Leaving the loop cancels what has not started.

#include <cstdint>
#include <iostream>
#include <ranges>

#include <procpool/procpool.hpp>

/// How many steps n takes to 1, where an even number is halved and an odd one becomes 3n + 1.
int collatz_steps(std::uint64_t n) {
  int steps = 0;
  for (; n != 1; ++steps) n = n % 2 == 0 ? n / 2 : 3 * n + 1;
  return steps;
}

int main() {
  procpool::process_pool pool{4};

  std::uint64_t n = 1;
  for (const int steps : pool.with({.buffersize = 200}).imap(collatz_steps, std::views::iota(n))) {
    if (steps >= 200) {
      std::cout << n << " is the first number that takes 200 steps or more: " << steps << '\n';
      break;
    }
    ++n;
  }
}
