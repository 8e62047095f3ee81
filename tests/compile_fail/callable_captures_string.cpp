// expect: make what it captures an argument
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string>

int main() {
  procpool::process_pool pool{1};
  const std::string s = "a";
  pool.apply([s] { return s.size(); });
}
