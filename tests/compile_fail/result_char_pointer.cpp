// expect: a char* is an address in its own process
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

int main() {
  procpool::process_pool pool{1};
  pool.apply([] { return "text"; });
}
