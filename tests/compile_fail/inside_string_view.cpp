// expect: as a result or inside another type use std::string
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string_view>

struct entry {
  int n;
  std::string_view text;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](entry) {}, entry{1, "a"});
}
