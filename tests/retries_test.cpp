// SPDX-License-Identifier: BSL-1.0
// call_options::retries: a task whose worker died is run again.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <ranges>
#include <stdexcept>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

TEST_CASE("a task whose worker dies is run again, at most as often as was asked", "[retries]") {
  resources_unchanged guard;
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      const shared_words runs(2);
      process_pool pool{2};
      const auto until_third = [counts = runs.in_task(), die = how.die](int which) {
        if (++counts[which] < 3) return die();
        return 7;
      };
      CHECK(pool.with({.retries = 2}).apply(until_third, 0) == 7);
      CHECK(runs[0] == 3);
      CHECK_THROWS_AS(pool.with({.retries = 1}).apply(until_third, 1), worker_crashed);
      CHECK(runs[1] == 2);
      CHECK(eventually([&] { return pool.stats().workers_crashed == 4; }));
      const pool_stats now = pool.stats();
      CHECK(now.tasks_submitted == 2);
      CHECK(now.tasks_completed == 1);
      CHECK(now.tasks_failed == 1);
    }
  }
}

TEST_CASE("without retries nothing is run again", "[retries]") {
  resources_unchanged guard;
  const shared_words runs(1);
  process_pool pool{1};
  CHECK_THROWS_AS(pool.apply([counts = runs.in_task()] {
    ++counts[0];
    ::raise(SIGSEGV);
  }),
                  worker_crashed);
  CHECK(runs[0] == 1);
}

TEST_CASE("exceptions and time-outs are not retried", "[retries]") {
  resources_unchanged guard;
  const shared_words runs(2);
  process_pool pool{1};
  auto patient = pool.with({.timeout = 30ms, .retries = 5});
  CHECK_THROWS_AS(patient.apply([counts = runs.in_task()] {
    ++counts[0];
    throw std::runtime_error("once");
  }),
                  std::runtime_error);
  CHECK_THROWS_AS(patient.apply([counts = runs.in_task()] {
    ++counts[1];
    for (;;) ::pause();
  }),
                  task_timeout);
  CHECK(runs[0] == 1);
  CHECK(runs[1] == 1);
}

TEST_CASE("the clock of a time limit starts anew with each run", "[retries][time_limit]") {
  resources_unchanged guard;
  const shared_words runs(1);
  process_pool pool{1};
  CHECK(pool.with({.timeout = 600ms, .retries = 3}).apply([counts = runs.in_task()] {
    ::usleep(250'000);
    if (++counts[0] < 4) ::raise(SIGKILL);
    return 7;
  }) == 7);
}

TEST_CASE("of a chunk only the element whose worker died is run again", "[retries]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{100});
  const int workers = GENERATE(1, 3);
  CAPTURE(chunksize, workers);
  const shared_words runs(100);
  process_pool pool{workers};
  const auto work = [counts = runs.in_task()](int x) {
    if (++counts[x] <= x % 4) ::raise(SIGKILL);
    return 2 * x;
  };
  auto retrying = pool.with({.retries = 2});
  const auto outcomes = retrying.try_map(work, std::views::iota(0, 100), chunksize);
  for (std::size_t i = 0; i != 100; ++i) {
    CAPTURE(i);
    CHECK(outcomes[i].has_value() == (i % 4 != 3));
    CHECK(runs[i] == static_cast<int>(i % 4 == 3 ? 3 : i % 4 + 1));
  }
  CHECK(pool.stats().tasks_failed == 25);
  CHECK(pool.stats().tasks_completed == 75);
}

TEST_CASE("maps, lazy ranges and broadcast retry too", "[retries]") {
  resources_unchanged guard;
  const shared_words runs(60);
  const shared_words each(3);
  process_pool pool{3};
  auto retrying = pool.with({.retries = 1});
  const auto fragile = [counts = runs.in_task()](int x) {
    if (++counts[x] == 1 && x % 5 == 0) ::raise(SIGABRT);
    return x;
  };
  int expected = 0;
  for (const int x : retrying.map(fragile, std::views::iota(0, 20), 6)) CHECK(x == expected++);
  for (const int x : retrying.imap(fragile, std::views::iota(20, 40), 3)) CHECK(x == expected++);
  retrying.broadcast([counts = each.in_task()] {
    if (++counts[static_cast<int>(this_worker::index())] == 1) ::raise(SIGKILL);
  });
  for (int i = 0; i != 3; ++i) CHECK(each[static_cast<std::size_t>(i)] == 2);
}

TEST_CASE("a task that waits for another run can be cancelled, and ends with the pool", "[retries][cancel]") {
  resources_unchanged guard;
  {
    process_pool pool{1};
    auto poison = pool.with({.retries = 1'000'000}).apply_async([] { ::raise(SIGKILL); });
    REQUIRE(eventually([&] { return pool.stats().workers_crashed >= 3; }));
    CHECK(poison.cancel());
    CHECK(pool.apply([] { return 7; }) == 7);
    CHECK(eventually([&] { return pool.stats().tasks_failed == 1; }));
  }
  process_pool pool{2};
  auto poison = pool.with({.retries = 1'000'000}).map_async([](int) { ::raise(SIGKILL); }, std::views::iota(0, 50));
  REQUIRE(eventually([&] { return pool.stats().workers_crashed >= 3; }));
  pool.terminate();
  CHECK_THROWS_AS(poison.get(), pool_terminated);
}
