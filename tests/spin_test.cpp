// SPDX-License-Identifier: BSL-1.0
// How a thread looks before it sleeps.
#include <chrono>

#include <catch2/catch.hpp>

#include <procpool/detail/posix/spin.hpp>

using namespace procpool::detail;

namespace {

constexpr auto never = [] { return false; };

}  // namespace

TEST_CASE("what holds at once is seen before anything else is asked", "[spin]") {
  int asked = 0;
  CHECK(spin_until([] { return true; }, patience::usual, 0, [&](auto) { return ++asked != 0; }));
  CHECK(asked == 0);
}

TEST_CASE("what comes to hold is seen", "[spin]") {
  int looks = 0;
  CHECK(spin_until([&] { return ++looks == 5; }));
  CHECK(looks == 5);
}

TEST_CASE("whoever is in the way stops looking when it would give the processor away", "[spin]") {
  int asked = 0;
  std::chrono::nanoseconds after{};
  CHECK(!spin_until(never, patience::usual, 0, [&](std::chrono::nanoseconds spent) {
    after = spent;
    return ++asked != 0;
  }));
  CHECK(asked == 1);
  CHECK(after > std::chrono::nanoseconds(0));
}

TEST_CASE("whoever is not in the way looks until the time is over, and is asked each time", "[spin]") {
  std::chrono::nanoseconds before{};
  bool grows = true;
  CHECK(!spin_until(never, patience::usual, 1'000'000, [&](std::chrono::nanoseconds spent) {
    grows = grows && spent > before;
    before = spent;
    return false;
  }));
  CHECK(grows);
  CHECK(before > std::chrono::nanoseconds(0));
}
