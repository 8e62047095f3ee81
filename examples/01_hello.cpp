// SPDX-License-Identifier: BSL-1.0
//
// A function, a pool of four processes, and the four ways to call the one in the other.

#include <iostream>
#include <ranges>
#include <vector>

#include <procpool/procpool.hpp>

int square(int x) { return x * x; }

int main() {
  procpool::process_pool pool{4};  // forks four workers

  const int nine = pool.apply(square, 3);                                        // waits for the result
  procpool::future<int> later = pool.apply_async(square, 4);                     // does not
  const std::vector<int> squares = pool.map(square, std::views::iota(0, 1000));  // in parallel, results in order

  std::cout << nine << ' ' << later.get() << ' ' << squares.back() << '\n';

  std::cout << "squares below 50:";
  for (const int y : pool.imap(square, std::views::iota(0))) {  // results one by one, here of endless input
    if (y >= 50) break;
    std::cout << ' ' << y;
  }
  std::cout << '\n';
}  // closes the pool and waits for its workers
