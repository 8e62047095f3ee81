// SPDX-License-Identifier: BSL-1.0
// The main() of every test program. Catch2's signal handlers would turn a worker's death into a failed test.
#define CATCH_CONFIG_MAIN
#define CATCH_CONFIG_NO_POSIX_SIGNALS
#include <catch2/catch.hpp>

#include "support/sanitizers.hpp"

#ifdef PROCPOOL_TEST_TSAN
#include <thread>

namespace {
// ThreadSanitizer starts a thread of its own with the program's first; tests that count threads must find it there.
[[maybe_unused]] const bool sanitizer_is_up = [] {
  std::thread([] {}).join();
  return true;
}();
}  // namespace
#endif
