// expect: a std::function hides what it holds; submit the function
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <functional>

int main() {
  procpool::process_pool pool{1};
  const std::function<int()> f = [] { return 1; };
  pool.apply(f);
}
