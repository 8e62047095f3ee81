// SPDX-License-Identifier: BSL-1.0
// Workers that leave in good order: max_tasks_per_child and finalizers.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <memory>
#include <ranges>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int twice(int x) { return 2 * x; }
std::size_t own_generation() { return this_worker::generation(); }

/// Which process ran it.
std::pair<std::size_t, std::size_t> own_name(int) { return {this_worker::index(), this_worker::generation()}; }

}  // namespace

TEST_CASE("a worker is replaced after exactly max_tasks_per_child calls", "[process_pool]") {
  resources_unchanged guard;
  const std::size_t most = GENERATE(std::size_t{1}, std::size_t{2}, std::size_t{5});
  CAPTURE(most);
  process_pool pool{pool_options{.processes = 1, .max_tasks_per_child = most}};
  SECTION("one after the other") {
    for (std::size_t i = 0; i != 20; ++i) CHECK(pool.apply(own_generation) == i / most);
  }
  SECTION("queued") {
    std::vector<future<std::size_t>> results;
    for (int i = 0; i != 20; ++i) results.push_back(pool.apply_async(own_generation));
    for (std::size_t i = 0; i != 20; ++i) CHECK(results[i].get() == i / most);
  }
  CHECK(eventually([&] { return pool.stats().workers_retired == 20 / most; }));
  CHECK(pool.stats().workers_crashed == 0);
}

TEST_CASE("each element of a chunk counts as one task", "[process_pool]") {
  resources_unchanged guard;
  const std::size_t chunksize =
      GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{10}, std::size_t{100});
  const std::size_t most = GENERATE(std::size_t{1}, std::size_t{4}, std::size_t{7});
  CAPTURE(chunksize, most);
  SECTION("with one worker") {
    process_pool pool{pool_options{.processes = 1, .max_tasks_per_child = most}};
    const auto names = pool.map(own_name, std::views::iota(0, 50), chunksize);
    for (std::size_t i = 0; i != 50; ++i) CHECK(names[i].second == i / most);
  }
  SECTION("with several workers") {
    process_pool pool{pool_options{.processes = 3, .max_tasks_per_child = most}};
    std::map<std::pair<std::size_t, std::size_t>, std::size_t> runs;
    for (const auto& name : pool.map(own_name, std::views::iota(0, 200), chunksize)) ++runs[name];
    for (const auto& [name, count] : runs) {
      CAPTURE(name.first, name.second, count);
      CHECK(count <= most);
      // It was replaced: it must have run all that it may.
      if (runs.contains({name.first, name.second + 1})) CHECK(count == most);
    }
    const auto now = pool.stats();
    CHECK(now.workers_crashed == 0);
    CHECK(now.tasks_completed == 200);
  }
}

TEST_CASE("tasks that fail count for max_tasks_per_child", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 1, .max_tasks_per_child = 2}};
  CHECK_THROWS_AS(pool.apply([]() -> int { throw std::runtime_error("no"); }), std::runtime_error);
  CHECK(pool.apply(own_generation) == 0);
  CHECK(pool.apply(own_generation) == 1);
  CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
  CHECK(pool.apply(own_generation) == 2);
  CHECK(pool.apply(own_generation) == 2);
  CHECK(pool.apply(own_generation) == 3);
  CHECK(pool.stats().workers_crashed == 1);
}

TEST_CASE("with max_tasks_per_child = 1 each task has a process of its own", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 3, .max_tasks_per_child = 1}};
  const auto names = pool.map(own_name, std::views::iota(0, 60), 20);
  CHECK(std::set(names.begin(), names.end()).size() == 60);
  // A broadcast reaches each index once, whatever process has it.
  for (int i = 0; i != 5; ++i) CHECK_NOTHROW(pool.broadcast(twice, i));
  CHECK(eventually([&] { return pool.stats().workers_retired == 75; }));
  CHECK(eventually([&] { return pool.stats().workers_started == 78; }));
  CHECK(pool.stats().workers_crashed == 0);
}

TEST_CASE("a lazy range and retiring workers", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 2, .max_tasks_per_child = 3}};
  int expected = 0;
  for (const int result : pool.imap(twice, std::views::iota(0, 200), 4)) CHECK(result == 2 * expected++);
  CHECK(expected == 200);
}

TEST_CASE("cancelling tasks does not keep a worker from its last one", "[process_pool][future]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{pool_options{.processes = 1, .max_tasks_per_child = 4}};
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  REQUIRE(eventually([&] { return blocking.running(); }));
  std::vector<future<std::size_t>> results;
  for (int i = 0; i != 10; ++i) results.push_back(pool.apply_async(own_generation));
  for (const std::size_t i : {1U, 2U, 5U}) CHECK(results[i].cancel());
  go.open();
  std::size_t run = 1;
  for (const std::size_t i : {0U, 3U, 4U, 6U, 7U, 8U, 9U}) CHECK(results[i].get() == run++ / 4);
}

TEST_CASE("the finalizer runs in each worker when the pool closes", "[process_pool]") {
  resources_unchanged guard;
  const shared_words ends(3);
  const auto count = [ends = ends.in_task()] { ++ends[this_worker::index()]; };
  SECTION("by close() and join()") {
    process_pool pool{pool_options{.processes = 3, .finalizer = count}};
    pool.map(twice, std::views::iota(0, 10));
    for (const auto& each : ends) CHECK(each == 0);
    pool.close();
    pool.join();
    for (const auto& each : ends) CHECK(each == 1);
  }
  SECTION("by the destructor") {
    {
      process_pool pool{pool_options{.processes = 3, .finalizer = count}};
    }
    for (const auto& each : ends) CHECK(each == 1);
  }
}

TEST_CASE("the finalizer runs in a worker that retires, and after its last task", "[process_pool]") {
  resources_unchanged guard;
  const shared_words seen(3);  // tasks; finalizers; finalizers that came at the right time
  {
    process_pool pool{pool_options{.processes = 1,
                                   .finalizer =
                                       [seen = seen.in_task()] {
                                         ++seen[1];
                                         const int tasks = seen[0];
                                         const int due = 4 * (static_cast<int>(this_worker::generation()) + 1);
                                         if (tasks == (due < 10 ? due : 10)) ++seen[2];
                                       },
                                   .max_tasks_per_child = 4}};
    pool.map([seen = seen.in_task()](int) { ++seen[0]; }, std::views::iota(0, 10), 5);
    CHECK(eventually([&] { return seen[1] == 2; }));
  }
  CHECK(seen[0] == 10);
  CHECK(seen[1] == 3);
  CHECK(seen[2] == 3);
}

TEST_CASE("no finalizer runs in a worker that crashed or was terminated", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words ends(2);
  const auto count = [ends = ends.in_task()] { ++ends[this_worker::generation()]; };
  SECTION("crashed") {
    for (const death& how : all_deaths()) {
      CAPTURE(how.name);
      ends[0] = ends[1] = 0;
      {
        process_pool pool{pool_options{.processes = 1, .finalizer = count}};
        CHECK_THROWS_AS(pool.apply(how.die), worker_crashed);
        CHECK(pool.apply(twice, 1) == 2);  // a pool that is closed at once needs no replacement
      }
      CHECK(ends[0] == 0);
      CHECK(ends[1] == 1);
    }
  }
  SECTION("terminated") {
    {
      process_pool pool{pool_options{.processes = 2, .finalizer = count}};
      pool.apply(twice, 1);
      pool.terminate();
    }
    CHECK(ends[0] == 0);
  }
}

TEST_CASE("a finalizer that throws or dies harms nobody", "[process_pool][crash]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      process_pool pool{
          pool_options{.processes = 2, .finalizer = [die = how.die] { die(); }, .max_tasks_per_child = 3}};
      const auto results = pool.map(twice, std::views::iota(0, 20));
      for (int i = 0; i != 20; ++i) CHECK(results[static_cast<std::size_t>(i)] == 2 * i);
      pool.close();
      pool.join();
      CHECK(pool.stats().workers_retired == 0);
      CHECK(pool.stats().tasks_failed == 0);
    }
  }
  resources_unchanged guard;
  process_pool pool{
      pool_options{.processes = 2, .finalizer = [] { throw std::runtime_error("late"); }, .max_tasks_per_child = 2}};
  CHECK(pool.map(twice, std::views::iota(0, 9)).size() == 9);
  pool.close();
  pool.join();
  CHECK(pool.stats().workers_crashed == 0);
}

TEST_CASE("a finalizer that hangs is killed after ten seconds", "[process_pool][slow]") {
  resources_unchanged guard;
  const auto start = std::chrono::steady_clock::now();
  {
    process_pool pool{pool_options{.processes = 2, .finalizer = [] {
                                     if (this_worker::index() == 1) {
                                       for (;;) ::pause();
                                     }
                                   }}};
    CHECK(pool.apply(twice, 1) == 2);
  }
  const auto took = std::chrono::steady_clock::now() - start;
  CHECK(took >= 10s);
  CHECK(took < 20s);
}

TEST_CASE("a finalizer may take its time", "[process_pool]") {
  resources_unchanged guard;
  const gate go;
  const shared_words ends(1);
  {
    process_pool pool{pool_options{.processes = 1, .finalizer = [go = go.in_task(), ends = ends.in_task()] {
                                     go.pass();
                                     ++ends[0];
                                   }}};
    auto result = pool.apply_async(twice, 4);
    pool.close();
    CHECK(result.get() == 8);  // comes before the finalizer
    CHECK(ends[0] == 0);
    go.open();
  }
  CHECK(ends[0] == 1);
}

TEST_CASE("terminate() does not wait for finalizers", "[process_pool]") {
  resources_unchanged guard;
  const gate in_finalizer;
  process_pool pool{pool_options{.processes = 1,
                                 .finalizer =
                                     [entered = in_finalizer.in_task()] {
                                       entered.open();
                                       for (;;) ::pause();
                                     },
                                 .max_tasks_per_child = 1}};
  CHECK(pool.apply(twice, 4) == 8);
  in_finalizer.pass();
  auto waiting = pool.apply_async(twice, 5);
  pool.terminate();
  CHECK_THROWS_AS(waiting.get(), pool_terminated);
}

TEST_CASE("terminate() frees a join() that waits for a finalizer, also if the worker cannot be killed",
          "[process_pool][terminate]") {
  resources_unchanged guard;
  const shared_words finalizing(1);
  pid_t zygote;
  {
    process_pool pool{pool_options{.processes = 1, .finalizer = [word = finalizing.in_task()] {
                                     *word = 1;
                                     for (;;) ::pause();
                                   }}};
    zygote = pool.apply([] { return ::getppid(); });
    pool.close();
    std::thread joins([&] { pool.join(); });
    CHECK(eventually([&] { return finalizing[0] == 1; }));
    ::kill(zygote, SIGSTOP);  // it kills nobody now
    pool.terminate();
    joins.join();
  }
  ::kill(zygote, SIGCONT);
  CHECK(await_end(zygote));
}
