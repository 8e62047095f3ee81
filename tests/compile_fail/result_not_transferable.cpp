// expect: give the type a serialize() member
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <thread>

int main() {
  procpool::process_pool pool{1};
  pool.apply([] { return std::thread(); });
}
