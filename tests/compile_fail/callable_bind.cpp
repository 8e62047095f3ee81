// expect: the result of std::bind hides what it holds
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <functional>

int add(int a, int b) { return a + b; }

int main() {
  procpool::process_pool pool{1};
  pool.apply(std::bind(add, 1, std::placeholders::_1), 2);
}
