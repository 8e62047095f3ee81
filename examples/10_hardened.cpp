// SPDX-License-Identifier: BSL-1.0
//
// A hardened worker reaches into no other process, and opens only the files that it was given. That bounds what a task
// that has gone astray can do; it is no sandbox for code that is hostile.

#include <signal.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

bool can_read(const std::string& path) { return std::ifstream(path).good(); }

bool can_stop(pid_t process) { return kill(process, SIGSTOP) == 0; }

bool can_allocate(std::size_t bytes) {
  try {
    return std::vector<char>(bytes, 'x').size() == bytes;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

int main() {
  // 1 GiB of memory is what a worker may have besides what it starts with.
  procpool::process_pool pool{procpool::pool_options{
      .processes = 2, .initializer = procpool::hardened({.readable = {"/usr"}, .address_space = 1 << 30})}};

  std::cout << std::boolalpha << "read /usr/include/stdio.h: " << pool.apply(can_read, "/usr/include/stdio.h") << '\n'
            << "read /etc/passwd: " << pool.apply(can_read, "/etc/passwd") << '\n'
            << "allocate 100 MB: " << pool.apply(can_allocate, 100'000'000) << '\n'
            << "allocate 2 GB: " << pool.apply(can_allocate, 2'000'000'000) << '\n'
            << "stop this program: " << pool.apply(can_stop, getpid()) << '\n';
}
