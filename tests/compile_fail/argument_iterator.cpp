// expect: an iterator holds an address
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <vector>

int main() {
  procpool::process_pool pool{1};
  std::vector<int> v(3);
  pool.apply([](std::vector<int>::iterator) {}, v.begin());
}
