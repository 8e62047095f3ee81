// expect: is made first; give the type a default constructor
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string>
#include <utility>

class text {
 public:
  explicit text(std::string s) : s_(std::move(s)) {}
  template <class Archive>
  void serialize(Archive& archive) {
    archive(s_);
  }

 private:
  std::string s_;
};

int main() {
  procpool::process_pool pool{1};
  pool.apply([](text) {}, text("a"));
}
