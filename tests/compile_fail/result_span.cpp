// expect: as a result or inside another type use std::vector<T>
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <span>

int main() {
  procpool::process_pool pool{1};
  pool.apply([](int) { return std::span<const int>(); }, 1);
}
