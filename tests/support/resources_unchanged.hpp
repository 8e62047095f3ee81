// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>

#include <catch2/catch.hpp>

#include "resources.hpp"

namespace support {

/// Checks at its end that nothing is left of what came into being in its life: no descriptor, no thread, no child, no
/// shared mapping, and no process at all, wherever it was reparented to.
class resources_unchanged {
 public:
  resources_unchanged() {
    // Every process that is forked from now on inherits the writing end, also past an exec: when the reading end sees
    // the end of the file, none is left.
    if (::pipe(ends_) != 0) std::abort();
    ::fcntl(ends_[0], F_SETFD, FD_CLOEXEC);
    before_ = resources::now();
  }
  resources_unchanged(const resources_unchanged&) = delete;
  resources_unchanged& operator=(const resources_unchanged&) = delete;
  ~resources_unchanged() {
    check();
    ::close(ends_[0]);
  }

  /// Also before its end, once.
  void check() {
    if (checked_) return;
    checked_ = true;
    const resources after = resources::once_as(before_);
    CHECK(resources::added(before_, after) == "");
    CHECK(resources::added(after, before_) == "");
    ::close(ends_[1]);
    pollfd last{ends_[0], POLLIN, 0};
    CHECK(::poll(&last, 1, 20'000) == 1);
    CHECK((last.revents & (POLLHUP | POLLIN)) == POLLHUP);
  }

 private:
  int ends_[2]{};
  resources before_;
  bool checked_ = false;
};

}  // namespace support
