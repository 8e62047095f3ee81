// compiles
// SPDX-License-Identifier: BSL-1.0
// What the other files do, done right.
#include <procpool/procpool.hpp>

#include <string>
#include <vector>

int main() {
  procpool::process_pool pool{1};
  const std::vector<std::string> words{"one", "two"};
  const std::vector<std::size_t> sizes = pool.map([](const std::string& word) { return word.size(); }, words);
  return sizes.size() == 2 && pool.apply([](int x) { return x + 1; }, 1) == 2 ? 0 : 1;
}
