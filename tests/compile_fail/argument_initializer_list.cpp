// expect: a std::initializer_list refers to elements that it does not own
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <initializer_list>

int main() {
  procpool::process_pool pool{1};
  std::initializer_list<int> l{1, 2};
  pool.apply([](std::initializer_list<int>) {}, l);
}
