// SPDX-License-Identifier: BSL-1.0
// Every way for a worker to die, hang or stop, in every phase of its life.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/resources_unchanged.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int twice(int x) { return 2 * x; }

/// What ends a worker, or keeps it for ever.
void meet(std::size_t which) {
  const std::vector<death> deaths = all_deaths();
  if (which < deaths.size()) deaths[which].die();
  if (which == deaths.size()) ::raise(SIGSTOP);
  for (;;) ::pause();
}
std::size_t ways() { return all_deaths().size() + 2; }
std::string name_of(std::size_t which) {
  const std::vector<death> deaths = all_deaths();
  return which < deaths.size() ? deaths[which].name : which == deaths.size() ? "stops" : "hangs";
}

/// Ends the worker that decodes it.
struct deadly_argument {
  std::size_t which = 0;
  template <class Archive>
  void save(Archive& archive) const {
    archive(which);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(which);
    meet(which);
  }
};
/// Ends the worker that encodes it.
struct deadly_result {
  std::size_t which = 0;
  template <class Archive>
  void save(Archive& archive) const {
    meet(which);
    archive(which);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(which);
  }
};

int take(const deadly_argument&) { return 0; }
deadly_result make(std::size_t which) { return {which}; }
int run(std::size_t which) {
  meet(which);
  return 0;
}

/// The error that `call`, which meets that end, is to end in; and everything else goes on.
template <class Call>
void check_cell(std::size_t which, Call call) {
  const std::vector<death> deaths = all_deaths();
  resources_unchanged guard;
  process_pool pool{2};
  auto before = pool.apply_async(twice, 1);
  auto doomed = call(pool.with({.timeout = which < deaths.size() ? 60s : 100ms}));
  std::vector<future<int>> others;
  for (int i = 0; i != 20; ++i) others.push_back(pool.apply_async(twice, i));
  if (which < deaths.size()) {
    const auto crash = thrown_by<worker_crashed>([&] { doomed.get(); });
    CHECK(crash.signal() == deaths[which].signal);
    CHECK(crash.exit_status() == deaths[which].exit_status);
  } else {
    CHECK(thrown_by<task_timeout>([&] { doomed.get(); }).limit() == 100ms);
  }
  CHECK(before.get() == 2);
  for (int i = 0; i != 20; ++i) CHECK(others[static_cast<std::size_t>(i)].get() == 2 * i);
  CHECK(pool.apply(twice, 4) == 8);
  const pool_stats now = pool.stats();
  CHECK(now.workers_crashed == 1);
  CHECK(now.tasks_failed == 1);
  CHECK(now.tasks_completed == 22);
}

}  // namespace

TEST_CASE("any end of a worker while it decodes, runs or encodes costs that task alone", "[crash][matrix]") {
  for (std::size_t which = 0; which != ways(); ++which) {
    DYNAMIC_SECTION(name_of(which) << " in decode") {
      check_cell(which, [&](auto&& pool) { return pool.apply_async(take, deadly_argument{which}); });
    }
    DYNAMIC_SECTION(name_of(which) << " in the task") {
      check_cell(which, [&](auto&& pool) { return pool.apply_async(run, which); });
    }
    DYNAMIC_SECTION(name_of(which) << " in encode") {
      check_cell(which, [&](auto&& pool) { return pool.apply_async(make, which); });
    }
  }
}

TEST_CASE("any end of an idle worker costs no task", "[crash][matrix]") {
  const std::vector<death> deaths = all_deaths();
  for (std::size_t which = 0; which != deaths.size(); ++which) {
    if (deaths[which].die == ways_to_die::end_thread) continue;  // ends a thread, which is all it is to do
    DYNAMIC_SECTION(name_of(which)) {
      resources_unchanged guard;
      const gate idle;
      process_pool pool{1};
      pool.apply([go = idle.in_task(), which] {
        std::thread([go, which] {
          go.pass();
          meet(which);
        }).detach();
      });
      idle.open();
      REQUIRE(eventually([&] { return pool.stats().workers_crashed == 1; }));
      CHECK(pool.apply(twice, 4) == 8);
      CHECK(pool.stats().tasks_failed == 0);
      CHECK(pool.stats().workers[0].generation == 1);
    }
  }
}

TEST_CASE("any end of a worker in its initializer is the constructor's error, or a failed start", "[crash][matrix]") {
  const std::vector<death> deaths = all_deaths();
  for (std::size_t which = 0; which != deaths.size(); ++which) {
    DYNAMIC_SECTION(name_of(which)) {
      resources_unchanged guard;
      CHECK_THROWS_AS((process_pool<>(2,
                                      [which] {
                                        if (this_worker::index() == 1) meet(which);
                                      })),
                      worker_start_error);
      // In a replacement: tried again, and nothing is lost.
      process_pool pool(1, [which] {
        if (this_worker::generation() == 1) meet(which);
      });
      CHECK_THROWS_AS(pool.apply([] { ::raise(SIGKILL); }), worker_crashed);
      CHECK(pool.apply(twice, 4) == 8);
      CHECK(pool.stats().tasks_failed == 1);
    }
  }
}

TEST_CASE("any end of a worker in its finalizer harms nobody", "[crash][matrix]") {
  const std::vector<death> deaths = all_deaths();
  for (std::size_t which = 0; which != deaths.size(); ++which) {
    DYNAMIC_SECTION(name_of(which)) {
      resources_unchanged guard;
      future<int> last;
      {
        process_pool pool{pool_options{.processes = 2, .finalizer = [which] {
                                         if (this_worker::index() == 0) meet(which);
                                       }}};
        last = pool.apply_async(twice, 4);
      }
      CHECK(last.get() == 8);
    }
  }
}
