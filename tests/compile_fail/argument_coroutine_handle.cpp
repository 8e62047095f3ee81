// expect: a std::coroutine_handle is an address
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <coroutine>

int main() {
  procpool::process_pool pool{1};
  pool.apply([](std::coroutine_handle<>) {}, std::coroutine_handle<>());
}
