// expect: give the type a serialize() member
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <exception>
#include <string>
#include <utility>

class oops : public std::exception {
 public:
  explicit oops(std::string s) : s_(std::move(s)) {}
  const char* what() const noexcept override { return s_.c_str(); }

 private:
  std::string s_;
};

int main() { procpool::register_exception<oops>(); }
