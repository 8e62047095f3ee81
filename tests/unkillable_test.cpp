// SPDX-License-Identifier: BSL-1.0
// Workers in uninterruptible sleep, that do not die when they are killed.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/freezer.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/tasks.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

bool can_freeze(const freezer& cold) {
  if (cold.is_there()) return true;
  WARN("not run: this process may not freeze others (cgroups(7), version 1)");
  return false;
}

}  // namespace

TEST_CASE("terminate() and the destructor do not wait for a worker that cannot be killed",
          "[process_pool][unkillable]") {
  resources_unchanged guard;
  const freezer cold;
  if (!can_freeze(cold)) return;
  pid_t worker = 0;
  {
    process_pool pool{2};
    auto hung = pool.apply_async(hang);
    REQUIRE(eventually([&] { return hung.running(); }));
    auto also_hung = pool.apply_async(hang);
    REQUIRE(eventually([&] { return also_hung.running(); }));
    worker = pool.stats().workers[0].pid;
    REQUIRE(cold.freeze(worker));
    pool.terminate();
    CHECK_THROWS_AS(hung.get(), pool_terminated);
    CHECK_THROWS_AS(also_hung.get(), pool_terminated);
  }
  CHECK(is_alive(worker));
  cold.thaw();
  CHECK(await_end(worker));
}

TEST_CASE("a worker that cannot be killed holds up neither its task nor others", "[process_pool][unkillable]") {
  resources_unchanged guard;
  const freezer cold;
  if (!can_freeze(cold)) return;
  pid_t worker = 0;
  {
    process_pool pool{1};
    const struct thawed_before_pool_ends {
      const freezer& cold;
      ~thawed_before_pool_ends() { cold.thaw(); }
    } thawed{cold};
    auto hung = pool.with({.timeout = 300ms}).apply_async(hang);
    auto behind = pool.apply_async(twice, 4);
    REQUIRE(eventually([&] { return hung.running(); }));
    worker = pool.stats().workers[0].pid;
    REQUIRE(cold.freeze(worker));
    CHECK_THROWS_AS(hung.get(20s), task_timeout);
    CHECK(behind.get(20s) == 8);  // in a replacement, while it is still there
    CHECK(is_alive(worker));
    CHECK(pool.apply(twice, 5) == 10);
    cold.thaw();
    CHECK(await_end(worker));
    CHECK(pool.apply(twice, 6) == 12);
  }
}

TEST_CASE("stats() can be had of a pool that has left behind what it could not kill", "[process_pool][unkillable]") {
  resources_unchanged guard;
  const freezer cold;
  if (!can_freeze(cold)) return;
  std::vector<pid_t> workers;
  {
    process_pool pool{1};  // with one lane to spare
    for (int round = 0; round != 2; ++round) {
      auto hung = pool.with({.timeout = 300ms}).apply_async(hang);
      REQUIRE(eventually([&] { return hung.running(); }));
      workers.push_back(pool.stats().workers[0].pid);
      REQUIRE(cold.freeze(workers.back()));
      if (round == 0) CHECK_THROWS_AS(hung.get(20s), task_timeout);
    }
    pool.terminate();
    pool.join();
    CHECK_FALSE(pool.stats().workers[0].alive);
    CHECK(pool.stats().tasks_running == 0);
  }
  cold.thaw();
  for (const pid_t each : workers) CHECK(await_end(each));
}
