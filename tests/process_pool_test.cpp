// SPDX-License-Identifier: BSL-1.0
#include <procpool/process_pool.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/tasks.hpp"

using namespace procpool;
using namespace support;
using namespace std::string_literals;

static_assert(!std::is_copy_constructible_v<process_pool<in_process>>);
static_assert(!std::is_move_constructible_v<process_pool<in_process>>);
static_assert(!std::is_copy_assignable_v<process_pool<in_process>>);
static_assert(!std::is_convertible_v<int, process_pool<in_process>>);
static_assert(!std::is_constructible_v<process_pool<in_process>, std::string>);
static_assert(!std::is_constructible_v<process_pool<in_process>, double>);
static_assert(std::is_constructible_v<process_pool<in_process>, int, void (*)(int), int>);
static_assert(!std::is_constructible_v<process_pool<in_process>, int, void (*)(int), std::string>);

static_assert(std::is_same_v<decltype(process_pool{4}), process_pool<shared_memory>>);
static_assert(std::is_same_v<decltype(process_pool{4u}), process_pool<shared_memory>>);
static_assert(std::is_same_v<decltype(process_pool{pool_options{.processes = 4}}), process_pool<shared_memory>>);
static_assert(std::is_same_v<decltype(process_pool({.processes = 4})), process_pool<shared_memory>>);
static_assert(std::is_same_v<decltype(process_pool{4, [] {}}), process_pool<shared_memory>>);

TEMPLATE_TEST_CASE("a pool is made in every way the interface names", "[process_pool]", PROCPOOL_TRANSPORTS) {
  using pool_type = process_pool<TestType>;
  {
    pool_type pool;
  }
  {
    pool_type pool{1};
  }
  {
    pool_type pool(std::size_t{1});
  }
  {
    pool_type pool{static_cast<unsigned char>(1)};
  }
  {
    pool_type pool{pool_options{.processes = 1}};
  }
  {
    pool_type pool({.processes = 1});
  }
  {
    pool_type pool{1, [](int, const std::string&) {}, 3, "three"};
    CHECK(pool.apply(square, 3) == 9);
  }
  {
    pool_type pool{1, [](std::unique_ptr<int> p) { return *p; }, std::make_unique<int>(3)};  // nothing is copied
    CHECK(pool.processes() == 1);
  }
}

TEMPLATE_TEST_CASE("less than one worker is refused, and more than an int too", "[process_pool]", PROCPOOL_TRANSPORTS) {
  using pool_type = process_pool<TestType>;
  CHECK_THROWS_AS(pool_type{0}, std::invalid_argument);
  CHECK_THROWS_AS(pool_type{-1}, std::invalid_argument);
  CHECK_THROWS_AS(pool_type{0u}, std::invalid_argument);
  CHECK_THROWS_AS(pool_type{std::uint64_t{1} << 32 | 1}, std::invalid_argument);
  CHECK_THROWS_AS(pool_type{std::int64_t{-1} << 40 | 1}, std::invalid_argument);
  CHECK_THROWS_AS(pool_type{pool_options{.processes = 0}}, std::invalid_argument);
  CHECK_THROWS_AS((pool_type{0, [] {}}), std::invalid_argument);
}

TEMPLATE_TEST_CASE("a pool may be destroyed in a callback", "[process_pool]", PROCPOOL_TRANSPORTS) {
  auto pool = std::make_unique<process_pool<TestType>>(2);
  auto done = pool->apply_async(square, 3).then([&pool](int x) {
    pool.reset();
    return x;
  });
  CHECK(done.get() == 9);
  CHECK(pool == nullptr);
}

TEMPLATE_TEST_CASE("after close or terminate every submitting member throws pool_closed", "[process_pool]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  auto before = pool.apply_async(square, 2);
  if (GENERATE(true, false)) {
    pool.close();
    pool.close();
    CHECK(before.get() == 4);
  } else {
    pool.terminate();
    pool.terminate();
    CHECK(before.ready());
  }
  int taken = 0;
  auto in = std::views::iota(0, 3) | std::views::transform([&taken](int i) { return ++taken, i; });
  const std::vector<std::pair<int, int>> pairs{{1, 2}};
  CHECK_THROWS_AS(pool.apply(square, 1), pool_closed);
  CHECK_THROWS_AS(pool.apply_async(square, 1), pool_closed);
  CHECK_THROWS_AS(pool.map(square, in), pool_closed);
  CHECK_THROWS_AS(pool.map(square, std::vector<int>{}), pool_closed);
  CHECK_THROWS_AS(pool.map_async(square, in), pool_closed);
  CHECK_THROWS_AS(pool.imap(square, in), pool_closed);
  CHECK_THROWS_AS(pool.imap_unordered(square, in), pool_closed);
  CHECK_THROWS_AS(pool.starmap(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.starmap_async(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.istarmap(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.istarmap_unordered(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.try_map(square, in), pool_closed);
  CHECK_THROWS_AS(pool.try_starmap(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.transform_reduce(in, 0, std::plus<>{}, square), pool_closed);
  CHECK_THROWS_AS(pool.broadcast([] {}), pool_closed);
  CHECK_THROWS_AS(pool.with({}).apply(square, 1), pool_closed);
  CHECK_THROWS_AS(pool.apply(square, 1), std::logic_error);
  CHECK(taken == 0);
  pool.join();
  pool.join();
}

TEMPLATE_TEST_CASE("join before close is a logic_error", "[process_pool]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  CHECK_THROWS_AS(pool.join(), std::logic_error);
  CHECK(pool.apply(square, 2) == 4);
  pool.close();
  pool.join();
}

TEMPLATE_TEST_CASE("futures outlive their pool", "[process_pool]", PROCPOOL_TRANSPORTS) {
  future<std::string> kept;
  future<std::vector<int>> many;
  {
    process_pool<TestType> pool{2};
    kept = pool.apply_async([] { return "kept"s; });
    many = pool.map_async(square, std::views::iota(0, 10));
  }
  CHECK(kept.get() == "kept");
  CHECK(many.get().at(9) == 81);
}

TEMPLATE_TEST_CASE("the counts of stats add up", "[process_pool]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  static_cast<void>(pool.try_map(fail_at_odd, std::vector{0, 1, 2, 3}));
  pool.apply(square, 1);
  const pool_stats stats = pool.stats();
  CHECK(stats.tasks_submitted == 5);
  CHECK(stats.tasks_completed + stats.tasks_failed + stats.tasks_queued + stats.tasks_running == 5);
  CHECK(stats.workers.size() == pool.processes());
  CHECK(stats.workers_started == pool.processes());
  CHECK(stats.workers_crashed == 0);
  CHECK(stats.workers_retired == 0);
  for (std::size_t i = 0; i != stats.workers.size(); ++i) {
    CHECK(stats.workers[i].index == i);
    CHECK(stats.workers[i].pid > 0);
    CHECK(stats.workers[i].generation == 0);
    CHECK(stats.workers[i].resident_bytes > 0);
    CHECK(stats.workers[i].alive);
  }
}

TEMPLATE_TEST_CASE("a pool in a process that did not construct it refuses, and goes quietly", "[process_pool]",
                   PROCPOOL_TRANSPORTS) {
  const auto refused = [](auto use) {
    try {
      use();
    } catch (const pool_closed&) {
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  };
  auto pool = std::make_unique<process_pool<TestType>>(1);
  auto ready = pool->apply_async(square, 2);
  ready.wait();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int good = 0;
    const std::vector<int> in{1};
    good += refused([&] { pool->apply(square, 1); });
    good += refused([&] { pool->map(square, in); });
    good += refused([&] { pool->map_async(square, in); });
    good += refused([&] { pool->try_map(square, in); });
    good += refused([&] { pool->imap(square, in); });
    good += refused([&] { pool->transform_reduce(in, 0, std::plus<>{}, square); });
    good += refused([&] { pool->broadcast([] {}); });
    good += refused([&] { pool->join(); });
    good += refused([&] { static_cast<void>(pool->stats()); });
    good += refused([&] { static_cast<void>(pool->template make_shared_array<int>(1)); });
    pool->close();
    pool->terminate();
    good += pool->processes() == 1;
    pool.reset();
    ::_exit(good);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 11);
  CHECK(ready.get() == 4);
  CHECK(pool->apply(square, 3) == 9);
}

TEMPLATE_TEST_CASE("several threads submit at once", "[process_pool]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{3};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t != 4; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round != 30; ++round) {
        if (pool.apply(square, t) != t * t) ++wrong;
        if (pool.map(square, std::vector{t, t + 1}).at(1) != (t + 1) * (t + 1)) ++wrong;
        std::size_t last = 0;
        const auto note = [&](std::size_t done, std::size_t) { last = done; };
        pool.with({.progress = note}).map(square, std::views::iota(0, 20));
        if (last != 20) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}
