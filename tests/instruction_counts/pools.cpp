// SPDX-License-Identifier: BSL-1.0
// What it costs to make a pool and to destroy it, in the thread that does it: nothing is counted of other threads and
// processes. A program of its own: what is compiled beside tasks.cpp would change the code of that.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <procpool/procpool.hpp>

#include "count.hpp"

int main() try {
  using namespace instruction_counts;
  print_conditions();
  const auto work = [] {
    for (int i = 0; i != 10; ++i) procpool::process_pool{2};
  };
  work();
  toggle();
  count("pool of 2 workers: caller", 10, work);
} catch (const std::exception& error) {
  std::fprintf(stderr, "instruction_counts: %s\n", error.what());
  return EXIT_FAILURE;
}
