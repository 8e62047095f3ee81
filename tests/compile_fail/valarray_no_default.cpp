// expect: a std::valarray is made before it is filled
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <valarray>

class length {
 public:
  explicit length(double metres) : metres_(metres) {}

 private:
  double metres_;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](const std::valarray<length>&) {}, std::valarray<length>(length(1), 3));
}
