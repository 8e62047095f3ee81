// expect: as a result or inside another type use std::string
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string_view>

int main() {
  procpool::process_pool pool{1};
  pool.apply([] { return std::string_view("text"); });
}
