// SPDX-License-Identifier: BSL-1.0
//
// A worker that dies costs the task that it was running, which ends in worker_crashed. All others end as ever, and a
// new worker takes its place.

#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <ranges>
#include <stdexcept>

#include <procpool/procpool.hpp>

int fragile(int x) {
  if (x == 2) std::raise(SIGSEGV);
  if (x == 4) std::_Exit(7);
  if (x == 6) throw std::out_of_range("six");
  return 10 * x;
}

int main() {
  procpool::process_pool pool{2};

  try {
    pool.apply(fragile, 2);
  } catch (const procpool::worker_crashed& death) {  // death.what() says it all in one line
    std::cout << "apply: worker " << death.pid() << " died of signal " << death.signal() << '\n';
  }

  for (const auto& outcome : pool.try_map(fragile, std::views::iota(1, 8))) {  // a value or an error for each
    if (outcome.has_value()) {
      std::cout << "value " << outcome.value() << '\n';
      continue;
    }
    try {
      std::rethrow_exception(outcome.error());
    } catch (const procpool::worker_crashed& death) {
      std::cout << "worker died: signal " << death.signal() << ", exit status " << death.exit_status() << '\n';
    } catch (const std::out_of_range& error) {
      std::cout << "exception " << error.what() << '\n';
    }
  }

  std::cout << "and it goes on: " << pool.apply(fragile, 100) << '\n';
}
