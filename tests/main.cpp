// SPDX-License-Identifier: BSL-1.0
// The main() of every test program. Catch2's signal handlers would turn a worker's death into a failed test.
#define CATCH_CONFIG_MAIN
#define CATCH_CONFIG_NO_POSIX_SIGNALS
#include <catch2/catch.hpp>
