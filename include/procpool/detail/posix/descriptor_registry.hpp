// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <vector>

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

  void add(int fd) {
    const std::lock_guard lock(mutex_);
    fds_.push_back(fd);
  }
  void remove(int fd) noexcept {
    const std::lock_guard lock(mutex_);
    fds_.erase(std::remove(fds_.begin(), fds_.end(), fd), fds_.end());
  }

  /// Held by the thread that forks, so that the child finds the list whole.
  std::unique_lock<std::mutex> freeze() { return std::unique_lock(mutex_); }

  /// In a forked child of a thread that held freeze(): closes them all but one.
  void close_all_but(int kept) noexcept {
    for (const int fd : fds_) {
      if (fd != kept) ::close(fd);
    }
    fds_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<int> fds_;
};

/// A descriptor that is in the registry while it is open.
class registered_fd {
 public:
  registered_fd() = default;
  explicit registered_fd(unique_fd fd) : fd_(above_standard_streams(std::move(fd))) {
    descriptor_registry::instance().add(fd_.get());
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
    if (fd_) descriptor_registry::instance().remove(fd_.get());
    fd_.reset();
  }

 private:
  unique_fd fd_;
};

}  // namespace procpool::detail
