// expect: the elements of a span are read where they lie
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <span>
#include <string>
#include <vector>

int main() {
  procpool::process_pool pool{1};
  std::vector<std::string> v(3);
  pool.apply([](std::span<const std::string>) {}, std::span<const std::string>(v));
}
