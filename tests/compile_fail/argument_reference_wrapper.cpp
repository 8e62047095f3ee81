// expect: a std::reference_wrapper holds an address
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

int main() {
  procpool::process_pool pool{1};
  int n = 0;
  pool.apply([](int) {}, std::ref(n));
}
