// SPDX-License-Identifier: BSL-1.0
// What valgrind has to find in a worker: a task that decides by memory which nobody has set.
#include <cstdlib>
#include <memory>

#include <procpool/procpool.hpp>

int main() {
  procpool::process_pool pool{1};
  const int result = pool.apply([] {
    int* volatile unset = new int;  // volatile: so that the compiler does not find it first
    const std::unique_ptr<int> owner(unset);
    if (*owner == 42) std::abort();
    return 1;
  });
  return result == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
