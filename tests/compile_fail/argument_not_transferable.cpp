// expect: arguments and results are copied to another process
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string>
#include <utility>

class closed {
 public:
  explicit closed(std::string s) : s_(std::move(s)) {}

 private:
  std::string s_;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](closed) {}, closed("a"));
}
