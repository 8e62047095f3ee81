// SPDX-License-Identifier: BSL-1.0
// The steps in which a parent and its worker race (lane_protocol.hpp), in every order in which the two can take them and
// with every value that each load may read by the rules of C++. Then each memory order in them is made weaker: that must
// be found, so it shows both that the order is needed and that the test sees what it is to see.
#include <catch2/catch.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "memory_model/explorer.hpp"
#include "memory_model/lane_world.hpp"

using namespace memory_model;

namespace {

// ---- the lane ------------------------------------------------------------------------------------------------------

struct scene {
  const char* what;
  lane_bounds bounds;
};

const scene scenes[] = {
    {"both sleep, a signal interrupts", {.operations = 1, .elements = 1, .interruptions = 1}},
    {"taking back from a worker that spins",
     {.operations = 3, .elements = 3, .worker_sleeps = false, .parent_sleeps = false}},
    {"taking back from a worker that sleeps", {.operations = 2, .elements = 2, .parent_sleeps = false}},
    {"room for one reply in the ring",
     {.operations = 3,
      .elements = 3,
      .replies = 1,
      .takes_back = false,
      .worker_sleeps = false,
      .parent_sleeps = false}},
    {"room for one reply in the arena",
     {.operations = 3,
      .elements = 3,
      .blocks = 1,
      .takes_back = false,
      .worker_sleeps = false,
      .parent_sleeps = false}},
    {"a parent that sleeps", {.operations = 2, .elements = 2, .worker_sleeps = false}},
    {"sleeping for room", {.operations = 3, .elements = 2, .replies = 1, .takes_back = false, .parent_sleeps = false}},
};

exploration explore(const lane_bounds& bounds, weakening weaker, std::map<unsigned, site>* reached = nullptr) {
  lane_world world(bounds);
  explorer<lane_world> all(world, weaker);
  exploration found = all.run();
  for (const site& each : all.sites) {
    if (reached != nullptr && each.line != 0) (*reached)[each.line] = each;
  }
  return found;
}

/// The lane's operations that order memory, by line of lane_protocol.hpp.
const std::map<unsigned, site>& sites() {
  static const std::map<unsigned, site> all = [] {
    std::map<unsigned, site> reached;
    for (const scene& each : scenes) explore(each.bounds, {}, &reached);
    return reached;
  }();
  return all;
}

std::memory_order weaker_than(const site& here) {
  switch (here.order) {
    case std::memory_order_seq_cst:
      return here.what == kind::load    ? std::memory_order_acquire
             : here.what == kind::store ? std::memory_order_release
                                        : std::memory_order_acq_rel;
    default:
      return std::memory_order_relaxed;
  }
}

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines(1);  // counted from 1
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("no schedule of a lane loses, doubles or tears anything, or lets both ends sleep", "[memory_model]") {
  for (const scene& each : scenes) {
    const exploration found = explore(each.bounds, {});
    std::printf("%-38s %8zu states, %8zu transitions, %.2g schedules\n", each.what, found.states, found.transitions,
                found.schedules);
    INFO(each.what << "\n" << found.trace);
    CHECK(found.violation == nullptr);
    CHECK(found.states > 1000);
  }
}

TEST_CASE("no order in the lane's protocol can be weaker", "[memory_model]") {
  std::size_t weakened = 0;
  for (const auto& [line, here] : sites()) {
    if (here.order == std::memory_order_relaxed) continue;
    const std::memory_order weaker = weaker_than(here);
    exploration found;
    const scene* where = nullptr;
    for (const scene& each : scenes) {
      where = &each;
      found = explore(each.bounds, {line, weaker});
      if (found.violation != nullptr) break;
    }
    std::printf("line %3u: %-5s %s instead of %s: %s (%s, %zu states)\n", line, name_of(here.what), name_of(weaker),
                name_of(here.order), found.violation == nullptr ? "not found" : found.violation, where->what,
                found.states);
    INFO("line " << line << " of lane_protocol.hpp: " << name_of(here.what));
    CHECK(found.violation != nullptr);
    ++weakened;
  }
  CHECK(weakened >= 18);
}

TEST_CASE("every order in the lane's protocol is explored", "[memory_model]") {
  REQUIRE_FALSE(sites().empty());
  const std::string path = sites().begin()->second.file;
  REQUIRE(path.find("lane_protocol.hpp") != std::string::npos);
  const std::vector<std::string> lines = lines_of(path);
  REQUIRE(lines.size() > 100);
  for (unsigned line = 1; line != lines.size(); ++line) {
    const std::string& text = lines[line];
    if (text.find("inline void fence") != std::string::npos) continue;  // where the fences of the library itself are
    if (text.find("std::memory_order_") == std::string::npos && text.find(" fence(") == std::string::npos) continue;
    INFO("line " << line << ": " << text);
    CHECK(sites().count(line) == 1);
  }
}
