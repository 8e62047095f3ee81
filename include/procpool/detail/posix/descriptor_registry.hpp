// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <span>
#include <utility>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// The descriptors by which the pools of this process tell that someone is gone. A process forked for another pool must
/// not hold copies of them, or an end would never be seen closed: it closes them all first thing (`unix(7)`, EOF).
class descriptor_registry {
 public:
  static descriptor_registry& instance() {
    static auto* registry = new descriptor_registry;  // never destroyed: pools with static storage may outlive it
    return *registry;
  }

  /// Held by the thread that forks, so that the child finds the list whole, and while a descriptor comes or goes.
  using frozen = std::unique_lock<std::mutex>;
  frozen freeze() { return frozen(mutex_); }

  void add(int fd, const frozen&) noexcept { fds_.push_back(fd); }
  void remove(int fd, const frozen&) noexcept { fds_.erase(std::remove(fds_.begin(), fds_.end(), fd), fds_.end()); }

  /// In a forked child of a thread that held freeze(): closes them all but those.
  void close_all_but(std::span<const int> kept) noexcept {
    for (const int fd : fds_) {
      if (std::find(kept.begin(), kept.end(), fd) == kept.end()) ::close(fd);
    }
    fds_.clear();
  }

 private:
  std::mutex mutex_;
  bookkeeping_vector<int> fds_;
};

/// A descriptor that is in the registry while it is open.
class registered_fd {
 public:
  registered_fd() = default;
  explicit registered_fd(unique_fd fd) : registered_fd(std::move(fd), descriptor_registry::instance().freeze()) {}
  /// Made while that was held: no process has been forked in between.
  registered_fd(unique_fd fd, const descriptor_registry::frozen& since) noexcept
      : fd_(above_standard_streams(std::move(fd))) {
    descriptor_registry::instance().add(fd_.get(), since);
  }
  registered_fd(registered_fd&&) noexcept = default;
  registered_fd& operator=(registered_fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::move(other.fd_);
    }
    return *this;
  }
  ~registered_fd() { reset(); }

  int get() const noexcept { return fd_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
  void reset() noexcept {
    if (!fd_) return;
    auto& registry = descriptor_registry::instance();
    const auto frozen = registry.freeze();
    registry.remove(fd_.get(), frozen);
    fd_.reset();
  }

 private:
  unique_fd fd_;
};

/// The two descriptors that `make` makes. They are in the registry from the start: of one that another pool's processes
/// got a copy of before it was, an end would never be seen closed.
template <class Make>
std::pair<registered_fd, registered_fd> make_registered(Make make) {
  const auto frozen = descriptor_registry::instance().freeze();
  std::pair<unique_fd, unique_fd> made = make();
  return {registered_fd(std::move(made.first), frozen), registered_fd(std::move(made.second), frozen)};
}

}  // namespace procpool::detail
