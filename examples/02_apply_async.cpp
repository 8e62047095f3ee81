// SPDX-License-Identifier: BSL-1.0
//
// What Python writes as pool.apply_async(action), (action, ["positional"]) and (action, kwds={"name": "by name"}): a
// function object may have default arguments, and an aggregate gives them names.

#include <unistd.h>

#include <iostream>
#include <string>

#include <procpool/procpool.hpp>

struct arguments {
  std::string name = "default";
};

struct {
  void operator()(const std::string& name = "default") const { std::cout << "(" << getpid() << ") " + name + "\n"; }
  void operator()(const arguments& named) const { (*this)(named.name); }
} constexpr action;

int main() {
  procpool::process_pool pool{3};
  pool.apply_async(action);
  pool.apply_async(action, "positional");
  pool.apply_async(action, arguments{.name = "by name"});
  pool.close();
  pool.join();
}
