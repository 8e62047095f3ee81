// SPDX-License-Identifier: BSL-1.0
//
// A pool bound to a scope, and map: the function runs on each element in one of four processes.

#include <unistd.h>

#include <array>
#include <iostream>
#include <vector>

#include <procpool/procpool.hpp>

int sum_below(int end) {
  int sum = 0;
  for (int i = 0; i < end; ++i) {
    std::cout << "(" << getpid() << ") running: " << i << '\n';
    sum += i;
  }
  return sum;
}

int main() {
  std::vector<int> sums;
  {
    procpool::process_pool pool{4};
    sums = pool.map(sum_below, std::array{50, 100, 150});
  }  // the workers are gone
  for (const int sum : sums) std::cout << sum << '\n';
}
