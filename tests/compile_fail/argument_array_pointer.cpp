// expect: a smart pointer to an array does not know the array's size
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <memory>

int main() {
  procpool::process_pool pool{1};
  pool.apply([](std::unique_ptr<int[]>) {}, std::make_unique<int[]>(3));
}
