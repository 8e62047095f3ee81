// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace storms {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

inline double seconds_since(clock_type::time_point begin) {
  return std::chrono::duration<double>(clock_type::now() - begin).count();
}

/// "--name value" pairs behind the tool's name.
class options {
 public:
  options(int argc, char** argv) {
    for (int i = 2; i + 1 < argc; i += 2) values_[std::string(argv[i]).substr(2)] = std::strtod(argv[i + 1], nullptr);
  }
  double get(const std::string& name, double standard) const {
    const auto found = values_.find(name);
    return found == values_.end() ? standard : found->second;
  }
  std::uint64_t count(const std::string& name, std::uint64_t standard) const {
    return static_cast<std::uint64_t>(get(name, static_cast<double>(standard)));
  }

 private:
  std::map<std::string, double> values_;
};

/// What did not hold. The first few are told at once; the tool fails if there is one.
class violations {
 public:
  void add(const std::string& text) {
    const std::lock_guard lock(mutex_);
    constexpr std::uint64_t most_told = 20;
    if (++count_ <= most_told) {
      std::printf("VIOLATION: %s\n", text.c_str());
      std::fflush(stdout);
    }
  }
  template <class... Parts>
  void add(std::string_view first, const Parts&... parts) {
    std::string text(first);
    const auto append = [&](const auto& part) {
      if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>) {
        text += std::to_string(part);
      } else {
        text += part;
      }
    };
    (append(parts), ...);
    add(text);
  }
  std::uint64_t count() const {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  std::uint64_t count_ = 0;
};

/// Ends the program when nothing happens for too long: a hang is a finding, not a time-out of whoever runs it.
class watchdog {
 public:
  watchdog(std::chrono::seconds longest, std::function<std::string()> describe)
      : longest_(longest), describe_(std::move(describe)), thread_([this] { run(); }) {}
  watchdog(const watchdog&) = delete;
  watchdog& operator=(const watchdog&) = delete;
  ~watchdog() {
    ended_ = true;
    thread_.join();
  }
  void alive() noexcept { progress_.fetch_add(1, std::memory_order_relaxed); }

 private:
  void run() {
    auto seen = progress_.load();
    auto since = clock_type::now();
    while (!ended_) {
      std::this_thread::sleep_for(50ms);
      if (const auto now = progress_.load(); now != seen) {
        seen = now;
        since = clock_type::now();
      } else if (clock_type::now() - since > longest_) {
        std::printf("VIOLATION: hung: nothing happened for %d s; %s\n", static_cast<int>(longest_.count()),
                    describe_().c_str());
        std::fflush(stdout);
        ::_exit(3);
      }
    }
  }

  const std::chrono::seconds longest_;
  const std::function<std::string()> describe_;
  std::atomic<std::uint64_t> progress_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

/// A mixing function: numbers that look random, from numbers.
inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// A small source of randomness; the same seed gives the same numbers.
class dice {
 public:
  explicit dice(std::uint64_t seed) : state_(mix(seed)) {}
  std::uint64_t below(std::uint64_t n) { return (state_ = mix(state_)) % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

}  // namespace storms
