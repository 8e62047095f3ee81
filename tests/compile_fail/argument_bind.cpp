// expect: the result of std::bind hides what it holds; use a lambda
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <functional>

int add(int a, int b) { return a + b; }

int main() {
  procpool::process_pool pool{1};
  auto b = std::bind(add, 1, 2);
  pool.apply([](decltype(b) f) { return f(); }, b);
}
