// SPDX-License-Identifier: BSL-1.0
#include <procpool/submitter.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <ranges>
#include <stdexcept>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/gate.hpp"
#include "support/tasks.hpp"

using namespace procpool;
using namespace support;

namespace {

/// Waits at element 0 for the gate of the running test to open.
struct passer {
  support::gate::key key;
  int operator()(int i) const {
    if (i == 0) key.pass();
    return i;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("with gives the same members with options", "[progress]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  auto configured = pool.with({.buffersize = 3});
  CHECK(configured.apply(square, 3) == 9);
  CHECK(configured.map(square, std::vector{1, 2}) == std::vector{1, 4});
  CHECK(configured.imap(square, std::vector{1, 2}).next() == 1);
}

TEMPLATE_TEST_CASE("progress tells how many elements have ended, the whole before map returns", "[progress]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  std::vector<std::pair<std::size_t, std::size_t>> calls;
  const auto options =
      call_options{.progress = [&](std::size_t done, std::size_t total) { calls.emplace_back(done, total); }};
  const auto check = [&](std::size_t total) {
    REQUIRE_FALSE(calls.empty());
    CHECK(calls.back() == std::pair(total, total));
    CHECK(std::ranges::is_sorted(calls));
    CHECK(std::ranges::adjacent_find(calls) == calls.end());
    for (const auto& call : calls) CHECK(call.second == total);
    calls.clear();
  };
  pool.with(options).map(square, std::views::iota(0, 1000));
  check(1000);
  pool.with(options).map_async(square, std::views::iota(0, 1000)).get();
  check(1000);
  pool.with(options).starmap(add, std::vector<std::pair<int, int>>{{1, 2}});
  check(1);
  pool.with(options).apply(square, 3);
  check(1);
  pool.with(options).try_map([](const fussy& f) { return f.value; }, std::vector<fussy>{{-1}, {1}, {-2}});
  check(3);
  CHECK_THROWS_AS(pool.with(options).map(fail_at_odd, std::views::iota(0, 100)), std::out_of_range);
  check(100);
  pool.with(options).broadcast([] {});
  check(pool.processes());
  pool.with(options).transform_reduce(std::views::iota(0, 1000), 0, std::plus<>{}, square);
  check(1000);
  CHECK(pool.with(options).map(square, std::vector<int>{}).empty());
  CHECK(calls.empty());
}

TEMPLATE_TEST_CASE("what progress throws is the error of the call, once all elements have ended", "[progress]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  const call_options options{.progress = [](std::size_t, std::size_t) { throw std::overflow_error("progress"); }};
  CHECK_THROWS_AS(pool.with(options).map(square, std::vector{1, 2, 3}), std::overflow_error);
  CHECK_THROWS_AS(pool.with(options).try_map(square, std::vector{1, 2, 3}), std::overflow_error);
  CHECK_THROWS_AS(pool.with(options).apply(square, 1), std::overflow_error);
  CHECK_THROWS_AS(pool.with(options).map(fail_at_odd, std::vector{1, 2, 3}), std::out_of_range);
  CHECK(pool.stats().tasks_submitted == 10);
}

TEST_CASE("cancel of a map ends what has not started, and its future at once", "[progress]") {
  const support::gate wait;
  const support::gate again;
  process_pool pool{1};
  std::atomic<std::size_t> reported{0};
  const bool with_progress = GENERATE(true, false);
  call_options options;
  if (with_progress) options.progress = [&](std::size_t done, std::size_t) { reported = done; };
  auto all = pool.with(options).map_async(passer{wait.in_task()}, std::views::iota(0, 100), 1);
  while (!all.running()) std::this_thread::yield();
  CHECK(all.cancel());
  CHECK_THROWS_AS(all.get(), task_cancelled);
  const std::size_t then = reported;
  wait.open();
  CHECK(pool.apply(square, 3) == 9);
  CHECK(reported == then);
  CHECK(pool.stats().tasks_submitted == 101);

  auto blocked = pool.apply_async(passer{again.in_task()}, 0);
  auto queued = pool.apply_async(square, 2);
  while (!blocked.running()) std::this_thread::yield();
  CHECK(queued.cancel());
  CHECK(queued.cancelled());
  CHECK_THROWS_AS(queued.get(), task_cancelled);
  again.open();
  CHECK(blocked.get() == 0);
}

TEST_CASE("terminate makes futures with progress ready too", "[progress]") {
  const support::gate wait;
  process_pool pool{1};
  std::atomic<std::size_t> reported{0};
  auto all = pool.with({.progress = [&](std::size_t done, std::size_t) { reported = done; }})
                 .map_async(passer{wait.in_task()}, std::views::iota(0, 100), 1);
  while (!all.running()) std::this_thread::yield();
  pool.terminate();
  CHECK(all.ready());
  CHECK_THROWS_AS(all.get(), pool_terminated);
  CHECK(reported < 100);
}

TEMPLATE_TEST_CASE("progress works when the call is made inside a callback", "[progress]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  std::size_t reported = 0;
  auto sum = pool.apply_async(square, 3).then([&](int nine) {
    const auto values = pool.with({.progress = [&](std::size_t done, std::size_t) { reported = done; }})
                            .map(square, std::vector{nine, nine});
    return values[0] + values[1];
  });
  CHECK(sum.get() == 162);
  CHECK(reported == 2);
}

TEMPLATE_TEST_CASE("callbacks run in one thread, never in a task, and may use the pool", "[progress]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  CHECK(pool.apply_async(square, 3).then([](int x) { return std::to_string(x); }).get() == "9");
  CHECK(pool.apply_async(fail_at_odd, 1).then([](int x) { return x; }, [](std::exception_ptr) { return -1; }).get() ==
        -1);
  CHECK_FALSE(pool.apply_async([] {}).then([] { return this_worker::in_worker(); }).get());
  CHECK(pool.apply_async(square, 2).then([&](int x) { return pool.apply(square, x); }).get() == 16);
}
