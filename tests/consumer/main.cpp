// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

int square(int x) { return x * x; }

int main() {
  procpool::process_pool pool{2};
  return pool.apply(square, 3) == 9 ? 0 : 1;
}
