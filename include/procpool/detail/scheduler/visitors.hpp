// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>

namespace procpool::detail {

/// Counts the threads that are inside of something that is not to be taken apart around them.
class visitors {
 public:
  /// True for the last one to leave.
  bool leave() noexcept { return count_.fetch_sub(1) == 1; }
  void enter() noexcept { count_.fetch_add(1); }
  bool none() const noexcept { return count_.load() == 0; }

 private:
  std::atomic<std::size_t> count_{0};
};

}  // namespace procpool::detail
