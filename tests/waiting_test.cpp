// SPDX-License-Identifier: BSL-1.0
// How a thread looks before it sleeps.
#include <chrono>

#include <catch2/catch.hpp>

#include <procpool/detail/posix/spin.hpp>
#include <procpool/detail/waiting.hpp>

using namespace procpool::detail;
using namespace std::chrono_literals;

namespace {

constexpr auto never = [] { return false; };

/// Waits for something that this thread always finds a part of; until `enough(times)`, which is told how many times it has
/// slept for a moment. False if it never is.
template <class Enough>
bool wait_for_parts(bool together, Enough enough) {
  int moments = 0;
  return help_until([&] { return enough(moments); }, [] { return true; }, std::chrono::steady_clock::now() + 20s, [] {},
                    [](bool) {},
                    [&](resting how) {
                      if (how == resting::for_a_moment) ++moments;
                      return true;
                    },
                    {.together = together});
}

}  // namespace

TEST_CASE("what holds at once is seen before anything else is asked", "[waiting]") {
  int asked = 0;
  CHECK(spin_until([] { return true; }, patience::usual, 0, [&](auto) { return ++asked != 0; }));
  CHECK(asked == 0);
}

TEST_CASE("what comes to hold is seen", "[waiting]") {
  int looks = 0;
  CHECK(spin_until([&] { return ++looks == 5; }));
  CHECK(looks == 5);
}

TEST_CASE("whoever is in the way stops looking when it would give the processor away", "[waiting]") {
  int asked = 0;
  std::chrono::nanoseconds after{};
  CHECK(!spin_until(never, patience::usual, 0, [&](std::chrono::nanoseconds spent) {
    after = spent;
    return ++asked != 0;
  }));
  CHECK(asked == 1);
  CHECK(after > std::chrono::nanoseconds(0));
}

TEST_CASE("whoever is not in the way looks until the time is over, and is asked each time", "[waiting]") {
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

TEST_CASE("whoever waits long for many elements sleeps for moments in between", "[waiting]") {
  CHECK(wait_for_parts(true, [](int moments) { return moments == 3; }));
}

TEST_CASE("whoever waits for one element after the other looks all the time", "[waiting]") {
  int slept = -1;
  const auto since = std::chrono::steady_clock::now();
  CHECK(wait_for_parts(false, [&](int moments) {
    slept = moments;
    return std::chrono::steady_clock::now() - since > 5ms;
  }));
  CHECK(slept == 0);
}
