// expect: want a stricter alignment than messages have
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <span>
#include <vector>

struct alignas(128) block {
  char bytes[128];
};

int main() {
  procpool::process_pool pool{1};
  std::vector<block> v(3);
  pool.apply([](std::span<const block>) {}, std::span<const block>(v));
}
