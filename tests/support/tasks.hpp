// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <cereal/access.hpp>
#include <procpool/procpool.hpp>

namespace support {

inline int square(int x) { return x * x; }
inline int twice(int x) { return 2 * x; }
inline int add(int a, int b) { return a + b; }
inline int fail_at_odd(int x) {
  if (x % 2 != 0) throw std::out_of_range("odd " + std::to_string(x));
  return x;
}
inline pid_t own_pid() { return ::getpid(); }
[[noreturn]] inline int hang() {
  for (;;) ::pause();
}
/// Returns when it is asked to stop.
inline void obey() {
  while (!procpool::this_worker::stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

struct person {
  std::string name;
  int age = 0;
  int years_to(int goal) const { return goal - age; }
};

/// No default constructor, no copies.
class token {
 public:
  explicit token(int value) : value_(std::make_unique<int>(value)) {}
  token(token&&) noexcept = default;
  token& operator=(token&&) noexcept = default;
  int value() const { return *value_; }

  template <class Archive>
  void save(Archive& archive) const {
    archive(*value_);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(*value_);
  }

 private:
  friend class cereal::access;
  token() : token(0) {}
  std::unique_ptr<int> value_;
};

/// A value whose encoding fails when it is negative.
struct fussy {
  int value = 0;
  template <class Archive>
  void save(Archive& archive) const {
    if (value < 0) throw std::domain_error("negative");
    archive(value);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(value);
    if (value == 1000) throw std::domain_error("a thousand");
  }
};

/// A function object with state, an aggregate.
struct scale {
  int factor = 1;
  std::string unit;
  std::string operator()(int x) const { return std::to_string(x * factor) + unit; }
};

/// An input range of 0, 1, … that throws when it is asked for element `bad`.
inline auto throwing_range(int n, int bad) {
  return std::views::iota(0, n) | std::views::transform([bad](int i) {
           if (i == bad) throw std::length_error("range");
           return i;
         });
}

}  // namespace support

/// What a test of behaviour runs over: TEMPLATE_TEST_CASE(..., PROCPOOL_TRANSPORTS).
#define PROCPOOL_TRANSPORTS procpool::in_process, procpool::shared_memory
