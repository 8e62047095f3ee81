// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

// Copied by seed_bugs.cmake to the headers with seeded bugs, which include it.
namespace procpool::detail {

/// Whether that bug is awake.
inline bool seeded_bug(const char* name) noexcept {
  const char* const wanted = std::getenv("PROCPOOL_SEEDED_BUG");
  return wanted != nullptr && std::strcmp(wanted, name) == 0;
}

/// Called when a pool gives up what it holds.
inline void seeded_leaks() noexcept {
  if (seeded_bug("leaked descriptor") && ::dup(STDERR_FILENO) < 0) std::abort();
  if (seeded_bug("leaked memory")) {
    void* volatile leaked = std::malloc(400);
    static_cast<void>(leaked);
  }
  if (seeded_bug("leaked mapping")) ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (seeded_bug("leaked zombie") && ::fork() == 0) ::_exit(0);
}

/// Called when a worker is started.
inline void seeded_slowdown() noexcept {
  static useconds_t times = 0;
  if (seeded_bug("slower with every worker")) ::usleep(100 * times++);
}

}  // namespace procpool::detail
