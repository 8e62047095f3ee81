// expect: or write an aggregate function object
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

int main() {
  procpool::process_pool pool{1};
  const auto a = procpool::make_shared_array<int>(3);
  pool.apply([a] { return a.size(); });
}
