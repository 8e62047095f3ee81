// expect: an aggregate with base classes cannot be taken apart
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string>

struct base {
  std::string s;
};
struct derived : base {
  std::string t;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](derived) {}, derived{{"a"}, "b"});
}
