// expect: a raw pointer is an address in its own process
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <vector>

struct node {
  int value;
  node* next;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](std::vector<node>) {}, std::vector<node>());
}
