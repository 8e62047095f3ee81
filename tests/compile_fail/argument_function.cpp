// expect: a std::function hides what it holds
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <functional>

int main() {
  procpool::process_pool pool{1};
  pool.apply([](std::function<int()> f) { return f(); }, std::function<int()>([] { return 1; }));
}
