// expect: an aggregate with a C array is made before it is filled
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string>

class length {
 public:
  explicit length(double d) : d_(d) {}

 private:
  double d_;
};
struct row {
  length l;
  std::string s[2];
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](row) {}, row{length(1), {"a", "b"}});
}
