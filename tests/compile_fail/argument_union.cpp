// expect: a union does not tell whether it holds an address
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

union either {
  int* p;
  double d;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](either) {}, either{nullptr});
}
