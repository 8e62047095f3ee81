// expect: what a std::shared_ptr points to is made before it is filled
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <memory>

class length {
 public:
  explicit length(double metres) : metres_(metres) {}

 private:
  double metres_;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](std::shared_ptr<length>) {}, std::make_shared<length>(1));
}
