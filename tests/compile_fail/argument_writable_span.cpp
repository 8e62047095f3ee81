// expect: what a task writes through a std::span<T> does not come back
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <span>
#include <vector>

int main() {
  procpool::process_pool pool{1};
  std::vector<int> v(3);
  pool.apply([](std::span<int>) {}, std::span<int>(v));
}
