// expect: this class may hold an address in its own process
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

class handle {
 public:
  explicit handle(int* p) : p_(p) {}
  int* get() const { return p_; }

 private:
  int* p_;
};

int main() {
  procpool::process_pool pool{1};
  int n = 0;
  pool.apply([](handle) {}, handle(&n));
}
