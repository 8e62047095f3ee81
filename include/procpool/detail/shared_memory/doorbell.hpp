// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include <procpool/detail/posix/descriptor_registry.hpp>
#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// Wakes the thread of the parent that waits for its workers (`eventfd(2)`). Holds no state that a death could leave
/// behind: one ring more or less costs one look at the lanes.
class doorbell {
 public:
  doorbell() : fd_(unique_fd(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"))) {}

  int fd() const noexcept { return fd_.get(); }

  void ring() const noexcept {
    const std::uint64_t one = 1;
    retry_on_eintr([&] { return ::write(fd_.get(), &one, sizeof(one)); });
  }

  /// Gives the descriptor up; nobody rings any more.
  void close() noexcept { fd_.reset(); }

  void answer() const noexcept {
    // Not by read(): whether that waits is decided by a flag that every process with the descriptor can clear.
    std::uint64_t count;
    iovec to{&count, sizeof(count)};
    const auto got = retry_on_eintr([&] { return ::preadv2(fd_.get(), &to, 1, -1, RWF_NOWAIT); });
    if (got < 0 && errno != EAGAIN) retry_on_eintr([&] { return ::read(fd_.get(), &count, sizeof(count)); });
  }

 private:
  registered_fd fd_;
};

/// What workers ring, each of which has both.
struct worker_bells {
  doorbell collector;
  doorbell leader;  ///< the thread that sleeps where it hears first (bell_watch)

  /// The one that a worker is to ring for this turn.
  const doorbell& of(std::uint32_t turn) const noexcept { return turn % 2 == 0 ? collector : leader; }

  void close() noexcept {
    collector.close();
    leader.close();
  }
};

}  // namespace procpool::detail
