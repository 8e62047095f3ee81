// expect: give the type a move constructor
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <atomic>

struct counter {
  std::atomic<int> n{0};
  template <class Archive>
  void serialize(Archive& archive) {
    archive(n);
  }
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([] { return counter{}; });
}
