// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>

#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// Tells how much this process has grown: resident memory of its own, without what it shares with files and other
/// processes (`proc(5)`, statm). Made before the process may be kept from opening files.
class growth_meter {
 public:
  /// `limit`: in bytes; 0: none, and nothing is opened.
  explicit growth_meter(std::size_t limit) : limit_(limit) {
    if (limit_ != 0) statm_ = above_standard_streams(unique_fd(::open("/proc/self/statm", O_RDONLY | O_CLOEXEC)));
  }

  /// What it has grown to so far does not count.
  void start() noexcept {
    if (limit_ != 0) before_ = own_bytes();
  }

  bool past_limit() const noexcept {
    if (limit_ == 0) return false;
    const std::size_t now = own_bytes();
    return now > before_ && now - before_ > limit_;
  }

 private:
  /// 0 if it cannot be told.
  std::size_t own_bytes() const noexcept {
    char text[128];
    const auto size = retry_on_eintr([&] { return ::pread(statm_.get(), text, sizeof(text) - 1, 0); });
    if (size <= 0) return 0;
    text[size] = '\0';
    unsigned long total = 0;
    unsigned long resident = 0;
    unsigned long shared = 0;
    if (std::sscanf(text, "%lu %lu %lu", &total, &resident, &shared) != 3 || shared > resident) return 0;
    return (resident - shared) * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  }

  const std::size_t limit_;
  unique_fd statm_;
  std::size_t before_ = 0;
};

}  // namespace procpool::detail
