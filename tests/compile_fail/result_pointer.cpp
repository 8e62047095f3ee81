// expect: send what it points to by value
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

int main() {
  procpool::process_pool pool{1};
  pool.apply([]() -> int* { return nullptr; });
}
