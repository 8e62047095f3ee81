// SPDX-License-Identifier: BSL-1.0
// The steps in which a parent and its worker race (lane_protocol.hpp), in every order in which the two can take them
// and with every value that each load may read by the rules of C++. Then each memory order in them is made weaker, and
// each step left out: that must be found, so it shows both that they are needed and that the test sees what it is to
// see.
#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "memory_model/explorer.hpp"
#include "memory_model/lane_world.hpp"
#include "memory_model/litmus.hpp"
#include "support/sanitizers.hpp"

using namespace memory_model;

namespace {

// A sanitizer makes the checker very slow, and has seen all of its code after a part of the states.
#if defined(PROCPOOL_TEST_ASAN)
constexpr std::size_t most_states = 10000;
#else
constexpr std::size_t most_states = ~std::size_t{0};
#endif

struct lane_exploration {
  exploration found;
  lane_world::happenings seen;
  std::map<unsigned, site> sites;  ///< by line of lane_protocol.hpp

  bool partial() const { return found.states == most_states; }
};

lane_exploration explore(const lane_bounds& bounds, weakening weaker = {}) {
  lane_world world(bounds);
  explorer<lane_world> all(world, weaker);
  lane_exploration result;
  result.found = all.run(most_states);
  result.seen = world.seen;
  for (const site& each : all.sites) {
    if (each.line != 0) result.sites[each.line] = each;
  }
  return result;
}

/// Goes through all that `bounds` allows. Nothing may go wrong.
lane_exploration require_right(const lane_bounds& bounds) {
  lane_exploration result = explore(bounds);
  const exploration& found = result.found;
  std::printf("%zu states, %zu transitions, %.2g schedules; %zu sleeps, %zu woken, %zu rings\n", found.states,
              found.transitions, found.schedules, found.sleeps, found.wakes, found.rings);
  INFO(found.trace);
  CHECK(found.violation == nullptr);
  CHECK((result.partial() || found.schedules > 10000));
  return result;
}

#ifdef PROCPOOL_NIGHTLY
constexpr std::uint8_t more = 1;
#else
constexpr std::uint8_t more = 0;
#endif

std::uint8_t count(int n) { return static_cast<std::uint8_t>(n + more); }

#ifndef PROCPOOL_TEST_ASAN

/// The smallest worlds in which whatever is missing is missed.
const lane_bounds small_worlds[] = {
    {.operations = 1, .elements = 2, .replies = 1, .takes_back = false, .worker_sleeps = false, .parent_sleeps = false},
    {.operations = 1, .elements = 2, .blocks = 1, .takes_back = false, .worker_sleeps = false, .parent_sleeps = false},
    {.operations = 2,
     .elements = 1,
     .watches = true,
     .takes_back = false,
     .worker_sleeps = false,
     .parent_sleeps = false},
    {.operations = 2, .elements = 2, .worker_sleeps = false, .parent_sleeps = false},
    {.operations = 1, .elements = 1},
    {.operations = 2, .elements = 1, .watches = true, .takes_back = false, .parent_sleeps = false},
    {.operations = 2, .elements = 2, .series = true, .worker_sleeps = false, .parent_sleeps = false},
    {.operations = 1, .elements = 2, .series = true, .takes_back = false, .worker_sleeps = false},
    {.operations = 3, .elements = 3, .series = true, .worker_sleeps = false, .parent_sleeps = false},
};

const std::map<unsigned, site>& sites() {
  static const std::map<unsigned, site> all = [] {
    std::map<unsigned, site> reached;
    for (const lane_bounds& each : small_worlds) reached.merge(explore(each).sites);
    return reached;
  }();
  return all;
}

/// What goes wrong in the small worlds; null: nothing.
const char* violation(const site& here, weakening weaker, const char* what) {
  exploration found;
  for (const lane_bounds& each : small_worlds) {
    found = explore(each, weaker).found;
    if (found.violation != nullptr) break;
  }
  std::printf("line %3u, %-9s %-7s -> %-8s %s\n", here.line, name_of(here.what), name_of(here.order), what,
              found.violation == nullptr ? "nothing goes wrong" : found.violation);
  return found.violation;
}

std::memory_order weaker_than(const site& here) {
  if (here.order != std::memory_order_seq_cst) return std::memory_order_relaxed;
  return here.what == kind::load    ? std::memory_order_acquire
         : here.what == kind::store ? std::memory_order_release
                                    : std::memory_order_acq_rel;
}

/// The lines of lane_protocol.hpp, counted from 1.
std::vector<std::string> lines() {
  std::vector<std::string> all(1);
  std::ifstream file(sites().begin()->second.file);
  for (std::string line; std::getline(file, line);) all.push_back(line);
  return all;
}

#endif  // PROCPOOL_TEST_ASAN

}  // namespace

// ---- the model -----------------------------------------------------------------------------------------------------

TEST_CASE("the model allows what C++ allows, and nothing else", "[memory_model]") {
  for (const litmus& each : litmus_tests) {
    litmus_world world(each);
    const exploration found = explorer<litmus_world>(world).run();
    INFO(each.what << "\n" << found.trace);
    CHECK((found.violation != nullptr) == each.possible);
  }
}

// ---- every schedule ------------------------------------------------------------------------------------------------

TEST_CASE("both ends of a lane sleep and none is forgotten", "[memory_model]") {
  const auto all = require_right({.operations = 1, .elements = 1, .interruptions = 1});
  CHECK((all.partial() || all.found.wakes > 0));
  CHECK((all.partial() || all.found.rings > 0));
}

TEST_CASE("both ends of a lane sleep over two elements", "[memory_model]") {
  const auto all = require_right({.operations = count(1), .elements = 2});
  CHECK((all.partial() || all.found.wakes > 0));
  CHECK((all.partial() || all.found.rings > 0));
}

TEST_CASE("elements are taken back from a worker that gets on", "[memory_model]") {
  const auto all =
      require_right({.operations = count(3), .elements = count(3), .worker_sleeps = false, .parent_sleeps = false});
  CHECK((all.partial() || all.seen.stepped_back));
  CHECK((all.partial() || all.seen.restored));
  CHECK((all.partial() || all.seen.taken_back));
  CHECK((all.partial() || all.seen.posted_again));
}

TEST_CASE("elements are taken back from a worker that falls asleep", "[memory_model]") {
  const auto all = require_right({.operations = count(2), .elements = 2, .parent_sleeps = false});
  CHECK((all.partial() || all.seen.stepped_back));
  CHECK((all.partial() || all.seen.restored));
  CHECK((all.partial() || all.seen.posted_again == (more != 0)));  // which needs three operations
  CHECK((all.partial() || all.found.wakes > 0));
}

TEST_CASE("a parent that sleeps takes elements back", "[memory_model]") {
  const auto all = require_right({.operations = count(3), .elements = 2, .worker_sleeps = false});
  CHECK((all.partial() || all.seen.posted_again));
  CHECK((all.partial() || all.found.rings > 0));
}

TEST_CASE("a reply ring with room for one reply is written again and again", "[memory_model]") {
  const auto all = require_right({.operations = count(3),
                                  .elements = count(3),
                                  .replies = 1,
                                  .takes_back = false,
                                  .worker_sleeps = false,
                                  .parent_sleeps = false});
  CHECK((all.partial() || all.seen.no_room));
}

TEST_CASE("an arena with room for one reply is written again and again", "[memory_model]") {
  require_right({.operations = count(3),
                 .elements = count(3),
                 .blocks = 1,
                 .takes_back = false,
                 .worker_sleeps = false,
                 .parent_sleeps = false});
}

TEST_CASE("a worker sleeps until there is room for its reply", "[memory_model]") {
  const auto all =
      require_right({.operations = count(1), .elements = 2, .replies = 1, .takes_back = false, .parent_sleeps = false});
  CHECK((all.partial() || all.seen.no_room));
  CHECK((all.partial() || all.found.wakes > 0));
}

TEST_CASE("elements are taken back from a worker that runs a series", "[memory_model]") {
  const auto all = require_right(
      {.operations = count(3), .elements = count(3), .series = true, .worker_sleeps = false, .parent_sleeps = false});
  CHECK((all.partial() || all.seen.went_on));
  CHECK((all.partial() || all.seen.stepped_back));
  CHECK((all.partial() || all.seen.restored));
  CHECK((all.partial() || all.seen.posted_again));
}

TEST_CASE("a parent that sleeps is rung for behind a series", "[memory_model]") {
  const auto all = require_right({.operations = count(1), .elements = 2, .series = true});
  CHECK((all.partial() || all.seen.went_on));
  CHECK((all.partial() || all.found.wakes > 0));
  CHECK((all.partial() || all.found.rings > 0));
}

TEST_CASE("only the element that runs is asked to stop, and is not taken back", "[memory_model]") {
  const auto all = require_right(
      {.operations = count(3), .elements = 2, .watches = true, .worker_sleeps = false, .parent_sleeps = false});
  CHECK((all.partial() || all.seen.stopped));
  CHECK((all.partial() || all.seen.stepped_back));
}

TEST_CASE("a worker that is woken for nothing loses nothing", "[memory_model]") {
  require_right({.operations = count(2), .elements = 1, .watches = true, .parent_sleeps = false});
}

#ifndef PROCPOOL_TEST_ASAN

// ---- what goes wrong otherwise -------------------------------------------------------------------------------------

TEST_CASE("no order in the lane's protocol can be weaker", "[memory_model]") {
  std::size_t weakened = 0;
  for (const auto& [line, here] : sites()) {
    if (here.order == std::memory_order_relaxed) continue;
    INFO("line " << line << " of lane_protocol.hpp");
    const std::memory_order weaker = weaker_than(here);
    CHECK(violation(here, {line, weaker}, name_of(weaker)) != nullptr);
    ++weakened;
  }
  CHECK(weakened >= 21);
}

TEST_CASE("no step of the lane's protocol can be left out, but those that only help", "[memory_model]") {
  // What each of these lines says more, so that leaving it out is no error of the protocol itself.
  const std::map<std::string, const char*> help = {
      {"replies.claimed.store(number - 1,",
       "or nothing could be taken back, and a death would fail what never started"},
      {"replies.claimed.store(number, std::memory_order_relaxed)", "the same"},
      {"replies.asleep.store(sleeping_for::nothing,", "or the worker would be woken while it is awake"},
      {"replies.published.store(published,", "repeats"},
      {"replies.claimed.store(claimed,", "repeats"},
      {"replies.timed.store(", "or no time limit would be kept"},
      {"requests.slots[(slot + 1) % ", "needs four chunks: see below"},
      {"requests.stop.store(", "or nobody would stop"},
  };
  const std::vector<std::string> text = lines();
  std::size_t left_out = 0;
  std::size_t helping = 0;
  for (const auto& [line, here] : sites()) {
    if (here.what == kind::load) continue;
    INFO("line " << line << " of lane_protocol.hpp: " << text.at(line));
    bool helps = text[line - 1].find("wake_in_any_case") != std::string::npos;
    for (const auto& [beginning, why] : help) helps = helps || text[line].find(beginning) != std::string::npos;
    ++(helps ? helping : left_out);
    if (!helps) CHECK(violation(here, {line, here.order, true}, "left out") != nullptr);
  }
  CHECK(left_out >= 15);
  CHECK(helping == help.size() + 1);
}

TEST_CASE("the slot behind a new chunk must name nothing", "[memory_model]") {
  const std::vector<std::string> text = lines();
  for (const auto& [line, here] : sites()) {
    if (text.at(line).find("requests.slots[(slot + 1) % ") == std::string::npos) continue;
    const auto all = explore({.operations = 4, .elements = 4, .worker_sleeps = false, .parent_sleeps = false},
                             {line, here.order, true});
    REQUIRE(all.found.violation != nullptr);
    std::printf("%s\n", all.found.violation);
    return;
  }
  FAIL("no such line");
}

TEST_CASE("every order in the lane's protocol is explored", "[memory_model]") {
  const std::vector<std::string> text = lines();
  REQUIRE(text.size() > 100);
  std::size_t orders = 0;
  for (unsigned line = 1; line != text.size(); ++line) {
    if (text[line].find("inline void fence") != std::string::npos) continue;  // where the library's own fences are
    if (text[line].find("memory_order_") == std::string::npos && text[line].find(" fence(") == std::string::npos)
      continue;
    INFO("line " << line << ": " << text[line]);
    CHECK(sites().count(line) == 1);
    ++orders;
  }
  CHECK(orders == sites().size());
}

#endif  // PROCPOOL_TEST_ASAN
