// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace support {

/// A way in which a task can take its worker along, and what the parent must hear of it.
struct death {
  const char* name;
  int (*die)();
  int signal;       ///< 0: the process exits
  int exit_status;  ///< -1: a signal ends the process
};

namespace ways_to_die {

inline int raise_segv() { return ::raise(SIGSEGV); }
__attribute__((no_sanitize("undefined", "address"))) inline int write_to_null() {
  volatile int* nowhere = nullptr;
  asm volatile("" : "+r"(nowhere));  // the compiler must not know, or it warns
  *nowhere = 1;
  return 0;
}
/// A page of a file that is shorter (mmap(2), SIGBUS).
__attribute__((no_sanitize("undefined", "address"))) inline int read_past_file() {
  const int file = ::memfd_create("empty", MFD_CLOEXEC);
  const void* at = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0);
  return *static_cast<const volatile int*>(at);
}
inline int raise_kill() { return ::raise(SIGKILL); }
inline int raise_term() { return ::raise(SIGTERM); }
inline int abort() { std::abort(); }
inline int exit_0() { std::exit(0); }
inline int exit_3() { std::exit(3); }
inline int fast_exit() { ::_exit(0); }
inline int quick_exit() { std::quick_exit(0); }
inline int end_thread() { ::pthread_exit(nullptr); }
__attribute__((noinline)) inline int overflow_stack(volatile char* above) {
  volatile char here[1024];
  here[0] = above[0];
  if (here[0] == 1) return 0;
  return overflow_stack(here) + here[1023];
}
inline int overflow() {
  volatile char start = 0;
  return overflow_stack(&start);
}
inline int run_true() {
  ::execl("/bin/true", "true", nullptr);
  return 0;
}
inline int run_sleep() {
  ::execl("/bin/sleep", "sleep", "1000", nullptr);
  return 0;
}

}  // namespace ways_to_die

inline std::vector<death> all_deaths() {
  using namespace ways_to_die;
  return {
      {"SIGSEGV, raised", raise_segv, SIGSEGV, -1},
      {"a write to address 0", write_to_null, SIGSEGV, -1},
      {"SIGBUS", read_past_file, SIGBUS, -1},
      {"SIGKILL", raise_kill, SIGKILL, -1},
      {"SIGTERM", raise_term, SIGTERM, -1},
      {"abort", abort, SIGABRT, -1},
      {"exit(0)", exit_0, 0, 0},
      {"exit(3)", exit_3, 0, 3},
      {"_exit(0)", fast_exit, 0, 0},
      {"quick_exit(0)", quick_exit, 0, 0},
      {"pthread_exit", end_thread, 0, 1},
      {"stack overflow", overflow, SIGSEGV, -1},
      {"exec of a program that ends", run_true, 0, 0},
      {"exec of a program that stays", run_sleep, SIGKILL, -1},
  };
}

}  // namespace support
