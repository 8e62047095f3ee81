// SPDX-License-Identifier: BSL-1.0
// future::cancel() of what runs.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <ranges>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"
#include "support/tasks.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

bool counts_add_up(const pool_stats& now) {
  return now.tasks_submitted == now.tasks_completed + now.tasks_failed + now.tasks_queued + now.tasks_running;
}

}  // namespace

TEST_CASE("cancelling a running task ends its future at once, and kills its worker", "[future][cancel]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t first = pool.apply(own_pid);
  auto running = pool.apply_async(hang);
  REQUIRE(eventually([&] { return running.running(); }));
  auto next = pool.apply_async(own_pid);
  CHECK(running.cancel());
  CHECK(running.ready());
  CHECK(running.cancelled());
  CHECK_FALSE(running.running());
  CHECK_FALSE(running.cancel());
  CHECK_THROWS_AS(running.get(), task_cancelled);
  CHECK(next.get() != first);
  CHECK(eventually([&] { return pool.stats().tasks_failed == 1; }));
  CHECK(pool.stats().workers_crashed == 1);
  CHECK(counts_add_up(pool.stats()));
}

TEST_CASE("a task that ended cannot be cancelled", "[future][cancel]") {
  resources_unchanged guard;
  process_pool pool{1};
  auto ended = pool.apply_async(twice, 4);
  ended.wait();
  CHECK_FALSE(ended.cancel());
  CHECK_FALSE(ended.cancelled());
  CHECK(ended.get() == 8);
  auto batch = pool.map_async(twice, std::views::iota(0, 10));
  batch.wait();
  CHECK_FALSE(batch.cancel());
  CHECK(batch.get().size() == 10);
  auto failed = pool.apply_async([] { ::raise(SIGKILL); });
  failed.wait();
  CHECK_FALSE(failed.cancel());
  CHECK_THROWS_AS(failed.get(), worker_crashed);
}

TEST_CASE("cancelling never kills the next task", "[future][cancel]") {
  resources_unchanged guard;
  constexpr int rounds = 400;
  const shared_words runs(rounds * 3);
  process_pool pool{2};
  const auto count = [counts = runs.in_task()](int x) {
    ++counts[x];
    return x;
  };
  std::vector<future<int>> innocent;
  int cancelled = 0;
  for (int i = 0; i != rounds; ++i) {
    auto victim = pool.apply_async(
        [](int x) {
          const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(x % 7 * 20);
          while (std::chrono::steady_clock::now() < end) {
          }
          return x;
        },
        i);
    for (int k = 0; k != 3; ++k) innocent.push_back(pool.apply_async(count, 3 * i + k));
    std::this_thread::sleep_for(std::chrono::microseconds(i % 11 * 10));
    if (victim.cancel()) {
      ++cancelled;
      CHECK_THROWS_AS(victim.get(), task_cancelled);
    } else {
      CHECK(victim.get() == i);
    }
  }
  for (int i = 0; i != 3 * rounds; ++i) CHECK(innocent[static_cast<std::size_t>(i)].get() == i);
  for (const auto& each : runs) CHECK(each == 1);
  CHECK(eventually([&] {
    const auto now = pool.stats();
    return now.tasks_queued + now.tasks_running == 0;
  }));
  CHECK(pool.stats().tasks_submitted == 4 * rounds);
  CHECK(counts_add_up(pool.stats()));
  INFO(cancelled << " of " << rounds << " cancelled");
  CHECK(cancelled > 0);
}

TEST_CASE("cancelling a map ends it at once, queued and running elements alike", "[future][cancel]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{1}, std::size_t{10});
  const shared_words runs(1);
  process_pool pool{3};
  auto results = pool.map_async(
      [counts = runs.in_task()](int) {
        ++counts[0];
        hang();
      },
      std::views::iota(0, 100), chunksize);
  REQUIRE(eventually([&] { return runs[0] == 3; }));
  CHECK(results.running());
  CHECK(results.cancel());
  CHECK(results.ready());
  CHECK_THROWS_AS(results.get(), task_cancelled);
  CHECK(eventually([&] { return pool.stats().tasks_failed == 100; }));
  CHECK(runs[0] == 3);
  CHECK(pool.apply(twice, 1) == 2);
}

TEST_CASE("a cancelled task has its grace", "[future][cancel][grace]") {
  resources_unchanged guard;
  const gate stopped;
  process_pool pool{1};
  const pid_t worker = pool.apply(own_pid);
  auto obedient = pool.with({.grace = 1h}).apply_async([done = stopped.in_task()] {
    obey();
    done.open();
  });
  REQUIRE(eventually([&] { return obedient.running(); }));
  CHECK(obedient.cancel());
  CHECK_THROWS_AS(obedient.get(), task_cancelled);  // not held up by the grace
  CHECK(stopped.is_open(10000));
  CHECK(pool.apply(own_pid) == worker);
  CHECK(pool.stats().workers_crashed == 0);
  CHECK(pool.stats().tasks_failed == 1);

  auto stubborn = pool.with({.grace = 20ms}).apply_async(hang);
  REQUIRE(eventually([&] { return stubborn.running(); }));
  CHECK(stubborn.cancel());
  CHECK(eventually([&] { return pool.stats().workers_crashed == 1; }));
  CHECK(pool.apply(own_pid) != worker);
}

TEST_CASE("a task that is cancelled within the grace of its time-out ends as cancelled", "[future][cancel][grace]") {
  resources_unchanged guard;
  const gate asked;
  process_pool pool{1};
  auto late = pool.with({.timeout = 10ms, .grace = 200ms}).apply_async([asked = asked.in_task()] {
    obey();
    asked.open();
    hang();
  });
  REQUIRE(asked.is_open(20'000));
  CHECK(late.cancel());
  CHECK_THROWS_AS(late.get(), task_cancelled);
  CHECK(pool.apply(twice, 2) == 4);
}

TEST_CASE("dropping a lazy range leaves what runs alone", "[lazy_results][cancel]") {
  resources_unchanged guard;
  const gate hold;
  const shared_words ended(1);
  process_pool pool{1};
  {
    auto results = pool.imap(
        [held = hold.in_task(), counts = ended.in_task()](int x) {
          held.pass();
          ++counts[0];
          return x;
        },
        std::views::iota(0));
    REQUIRE(eventually([&] { return pool.stats().tasks_running == 1; }));
  }
  hold.open();
  CHECK(pool.apply(twice, 4) == 8);
  CHECK(ended[0] == 1);
  CHECK(pool.stats().workers_crashed == 0);
}

TEST_CASE("many threads cancel at once", "[future][cancel]") {
  resources_unchanged guard;
  process_pool pool{3};
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t != 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i != 60; ++i) {
        auto mine = pool.apply_async(
            [](int x) {
              std::this_thread::sleep_for(std::chrono::microseconds(x));
              return x;
            },
            37 * t + 11 * i);
        auto keep = pool.apply_async(twice, i);
        if (i % 3 != 0) std::this_thread::sleep_for(std::chrono::microseconds(20 * i));
        const bool did = mine.cancel();
        try {
          if (mine.get() != 37 * t + 11 * i || did) ++wrong;
        } catch (const task_cancelled&) {
          if (!did) ++wrong;
        }
        if (keep.get() != 2 * i) ++wrong;
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(wrong == 0);
  CHECK(counts_add_up(pool.stats()));
}

TEST_CASE("cancel and terminate at once leave nothing behind", "[future][cancel]") {
  resources_unchanged guard;
  for (int round = 0; round != 40; ++round) {
    process_pool pool{2};
    std::vector<future<int>> all;
    for (int i = 0; i != 20; ++i) all.push_back(pool.apply_async(hang));
    std::thread other([&] {
      for (auto& each : all) each.cancel();
    });
    pool.terminate();
    other.join();
    for (auto& each : all) CHECK_THROWS_AS(each.get(), error);
  }
}

TEST_CASE("with in_process what has run cannot be cancelled", "[in_process][cancel]") {
  process_pool<in_process> pool{1};
  auto ended = pool.apply_async(twice, 4);
  CHECK_FALSE(ended.cancel());
  CHECK(ended.get() == 8);
}
