// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <linux/futex.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <stdexcept>

namespace bench {

/// Forks a process that runs `body` and ends; it does not outlive this one.
template <class Body>
pid_t fork_child(Body body) {
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork failed");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    ::_exit(0);
  }
  return pid;
}

inline void reap(pid_t pid) { ::waitpid(pid, nullptr, 0); }

using futex_word = std::atomic<std::uint32_t>;

inline void futex_wait(futex_word& word, std::uint32_t while_it_is) {
  ::syscall(SYS_futex, &word, FUTEX_WAIT, while_it_is, nullptr, nullptr, 0);
}
inline void futex_wake(futex_word& word) { ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

}  // namespace bench
