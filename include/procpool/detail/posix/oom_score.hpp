// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// How soon the kernel ends this process when memory runs out (proc(5), oom_score_adj). A process that it forks begins with
/// what it has at that moment, which costs less than to have each one write its own.
class oom_score {
 public:
  /// So much sooner than it was, as far as that goes.
  void raise(int by) noexcept {
    if (!file_) file_ = above_standard_streams(unique_fd(::open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC)));
    char text[16] = {};
    if (raised_ || !file_ || ::pread(file_.get(), text, sizeof(text) - 1, 0) <= 0) return;
    before_ = std::atoi(text);
    raised_ = write(std::min(most, before_ + by));
  }

  /// As it was before raise().
  void restore() noexcept {
    if (raised_ && write(before_)) raised_ = false;
  }

  /// In a forked process, which has the descriptor of another one's.
  void forget() noexcept { file_.reset(); }

 private:
  static constexpr int most = 1000;

  bool write(int score) const noexcept {
    char text[16];
    const auto size = static_cast<std::size_t>(std::snprintf(text, sizeof(text), "%d", score));
    return ::pwrite(file_.get(), text, size, 0) == static_cast<ssize_t>(size);
  }

  unique_fd file_;
  int before_ = 0;
  bool raised_ = false;
};

}  // namespace procpool::detail
