// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include <procpool/detail/posix/restartable_sequences.hpp>
#include <procpool/detail/posix/system_call.hpp>

namespace procpool::detail {

/// vfork(2), but without an exit signal: `run(argument)` is called in a child that shares this process's memory, and this
/// thread stands still until the child has ended. Returns its id, or -errno. `run` must end in _exit().
[[gnu::noinline]] inline long clone_and_stand_still(void (*run)(void*), void* argument) noexcept {
  // A child of clone(2) that keeps the stack pointer runs on this very stack: it may only go deeper, so the system call is
  // made in this frame, and the frame is not left in the child.
  constexpr long flags = CLONE_VM | CLONE_VFORK;
  long result;
#if defined(__x86_64__)
  register long child_tid asm("r10") = 0;
  register long tls asm("r8") = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(SYS_clone), "D"(flags), "S"(0L), "d"(0L), "r"(child_tid), "r"(tls)
               : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long number asm("x8") = SYS_clone;
  register long first asm("x0") = flags;
  register long stack asm("x1") = 0;
  register long parent_tid asm("x2") = 0;
  register long tls asm("x3") = 0;
  register long child_tid asm("x4") = 0;
  asm volatile("svc 0" : "+r"(first) : "r"(number), "r"(stack), "r"(parent_tid), "r"(tls), "r"(child_tid) : "memory");
  result = first;
#else
#error "procpool: this processor is not supported; x86-64 and arm64 are"
#endif
  if (result == 0) {
    run(argument);
    ::_exit(EXIT_FAILURE);
  }
  return result;
}

/// Forks a process that this one never hears of: it is no child of the application, and what forks it is a child without an
/// exit signal, so no SIGCHLD is sent and no wait() of the application finds either of them (clone(2), wait(2)). `run` is
/// called in the process and must not return. Call with all signals blocked. Throws std::system_error.
template <class Run>
void fork_unheard(Run& run) {
  // fork() is called while memory is shared, so it finds this process's locks as they are, and takes those it needs.
  const auto fork_and_leave = [](void* argument) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      renew_restartable_sequences();
      (*static_cast<Run*>(argument))();
    }
    ::_exit(pid > 0 ? EXIT_SUCCESS : errno);
  };
  const long between = clone_and_stand_still(fork_and_leave, &run);
  if (between < 0) throw_errno("clone", static_cast<int>(-between));
  int status = 0;
  const pid_t reaped = retry_on_eintr([&] { return ::waitpid(static_cast<pid_t>(between), &status, __WALL); });
  if (reaped == between && WIFEXITED(status) && WEXITSTATUS(status) != EXIT_SUCCESS)
    throw_errno("fork", WEXITSTATUS(status));
}

}  // namespace procpool::detail
