// expect: a view may refer to elements that it does not own
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <ranges>
#include <vector>

int main() {
  procpool::process_pool pool{1};
  std::vector<int> v(3);
  pool.apply([](std::ranges::ref_view<std::vector<int>>) {}, std::views::all(v));
}
