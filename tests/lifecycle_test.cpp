// SPDX-License-Identifier: BSL-1.0
// close(), terminate(), join(), the destructor and cancel(), in every order and from several threads.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"
#include "support/tasks.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

/// What every submitting member throws must be pool_closed.
void check_closed(process_pool<>& pool) {
  const std::vector<int> in{1, 2, 3};
  const std::vector<std::tuple<int, int>> pairs{{1, 2}};
  CHECK_THROWS_AS(pool.apply(twice, 1), pool_closed);
  CHECK_THROWS_AS(pool.apply_async(twice, 1), pool_closed);
  CHECK_THROWS_AS(pool.map(twice, in), pool_closed);
  CHECK_THROWS_AS(pool.map_async(twice, in), pool_closed);
  CHECK_THROWS_AS(pool.imap(twice, in), pool_closed);
  CHECK_THROWS_AS(pool.imap_unordered(twice, in), pool_closed);
  CHECK_THROWS_AS(pool.starmap(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.starmap_async(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.istarmap(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.istarmap_unordered(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.try_map(twice, in), pool_closed);
  CHECK_THROWS_AS(pool.try_starmap(add, pairs), pool_closed);
  CHECK_THROWS_AS(pool.transform_reduce(in, 0, std::plus<>(), twice), pool_closed);
  CHECK_THROWS_AS(pool.broadcast(twice, 1), pool_closed);
  CHECK_THROWS_AS(pool.with({.buffersize = 2}).apply(twice, 1), pool_closed);
  CHECK_THROWS_AS(pool.map(twice, std::vector<int>()), pool_closed);
  CHECK_THROWS_AS(pool.apply_async(twice, 1), std::logic_error);
}

}  // namespace

TEST_CASE("after close() submitted tasks finish and new ones are refused", "[process_pool]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{2};
  std::vector<future<int>> results;
  for (int i = 0; i != 100; ++i) {
    results.push_back(pool.apply_async(
        [go = go.in_task()](int x) {
          go.pass();
          return x;
        },
        i));
  }
  pool.close();
  check_closed(pool);
  go.open();
  for (int i = 0; i != 100; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i);
  pool.join();
  check_closed(pool);
  CHECK(pool.stats().tasks_completed == 100);
}

TEST_CASE("after terminate() everything is refused", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{2};
  pool.terminate();
  check_closed(pool);
  pool.join();
  check_closed(pool);
}

TEST_CASE("join() of an open pool is a logic error, and changes nothing", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{1};
  CHECK_THROWS_AS(pool.join(), std::logic_error);
  CHECK(pool.apply(twice, 4) == 8);
  pool.close();
  CHECK_NOTHROW(pool.join());
}

TEST_CASE("close, terminate and join can be called in any order and again", "[process_pool]") {
  resources_unchanged guard;
  // Each digit of the number is a call; a join that comes first must fail.
  for (int plan = 0; plan != 81; ++plan) {
    CAPTURE(plan);
    process_pool pool{2};
    auto result = pool.apply_async(twice, 4);
    CHECK(result.get() == 8);
    bool closed = false;
    for (int rest = plan, calls = 0; calls != 4; ++calls, rest /= 3) {
      switch (rest % 3) {
        case 0:
          pool.close();
          closed = true;
          break;
        case 1:
          pool.terminate();
          closed = true;
          break;
        default:
          if (closed) {
            CHECK_NOTHROW(pool.join());
          } else {
            CHECK_THROWS_AS(pool.join(), std::logic_error);
          }
      }
      if (closed) CHECK_THROWS_AS(pool.apply_async(twice, 1), pool_closed);
    }
  }
}

TEST_CASE("close, terminate and join can be called in several threads at once", "[process_pool]") {
  resources_unchanged guard;
  for (int round = 0; round != 20; ++round) {
    process_pool pool{2};
    std::vector<future<int>> results;
    for (int i = 0; i != 50; ++i) results.push_back(pool.apply_async(twice, i));
    const bool killed = round % 2 != 0;
    std::atomic<int> start{0};
    const auto line_up = [&] {
      for (++start; start != 6;) std::this_thread::yield();
    };
    std::vector<std::thread> threads;
    pool.close();
    for (int i = 0; i != 6; ++i) {
      threads.emplace_back([&, i] {
        line_up();
        if (i % 3 == 0) pool.close();
        if (i % 3 == 1) pool.join();
        if (i % 3 == 2 && killed) pool.terminate();
      });
    }
    for (auto& each : threads) each.join();
    for (int i = 0; i != 50; ++i) {
      auto& each = results[static_cast<std::size_t>(i)];
      REQUIRE(each.ready());
      if (!killed || each.successful()) {
        CHECK(each.get() == 2 * i);
      } else {
        CHECK_THROWS_AS(each.get(), pool_terminated);
      }
    }
  }
}

TEST_CASE("the destructor drops no task", "[process_pool]") {
  resources_unchanged guard;
  constexpr int tasks = 2000;
  const shared_words runs(tasks);
  std::vector<future<int>> results;
  {
    process_pool pool{3};
    for (int i = 0; i != tasks; ++i) {
      auto result = pool.apply_async([counts = runs.in_task()](int x) { return ++counts[x]; }, i);
      if (i % 2 == 0) results.push_back(std::move(result));  // the others are dropped, their tasks are not
    }
  }
  for (const auto& count : runs) CHECK(count == 1);
  for (auto& each : results) {
    REQUIRE(each.ready());
    CHECK(each.get() == 1);
  }
}

TEST_CASE("the destructor waits for a worker that is being replaced", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words runs(20);
  {
    process_pool pool{1};
    for (int i = 0; i != 20; ++i) {
      pool.apply_async(
          [counts = runs.in_task()](int x) {
            ++counts[x];
            return x % 3 == 0 ? ::raise(SIGKILL) : 0;
          },
          i);
    }
  }
  for (const auto& count : runs) CHECK(count == 1);
}

TEST_CASE("terminate() ends every future, also of a task that hangs", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{2};
  auto done = pool.apply_async(twice, 4);
  done.wait();
  std::vector<future<int>> hung;
  for (int i = 0; i != 2; ++i) hung.push_back(pool.apply_async(hang));
  std::vector<future<int>> queued;
  for (int i = 0; i != 1000; ++i) queued.push_back(pool.apply_async(twice, i));
  auto mapped = pool.map_async(twice, std::views::iota(0, 1000));
  REQUIRE(eventually([&] { return hung[0].running() && hung[1].running(); }));

  pool.terminate();
  CHECK(done.get() == 8);
  for (auto& each : hung) {
    REQUIRE(each.ready());
    CHECK_THROWS_AS(each.get(), pool_terminated);
  }
  for (auto& each : queued) {
    REQUIRE(each.ready());
    CHECK_THROWS_AS(each.get(), pool_terminated);
  }
  REQUIRE(mapped.ready());
  CHECK_THAT(text_of<pool_terminated>([&] { mapped.get(); }),
             Catch::StartsWith("procpool: map_async: task 0 of 1000: "));
  const auto now = pool.stats();
  CHECK(now.tasks_submitted == 2003);
  CHECK(now.tasks_completed == 1);
  CHECK(now.tasks_failed == 2002);
  CHECK(now.tasks_queued == 0);
  CHECK(now.tasks_running == 0);
}

TEST_CASE("terminate() kills workers that ignore signals or have stopped", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{2};
  auto deaf = pool.apply_async([] {
    sigset_t all;
    ::sigfillset(&all);
    ::sigprocmask(SIG_BLOCK, &all, nullptr);
    return hang();
  });
  auto stopped = pool.apply_async([] { return ::raise(SIGSTOP); });
  REQUIRE(eventually([&] { return deaf.running() && stopped.running(); }));
  pool.terminate();
  CHECK_THROWS_AS(deaf.get(), pool_terminated);
  CHECK_THROWS_AS(stopped.get(), pool_terminated);
}

TEST_CASE("terminate() ends calls that other threads wait in", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{2};
  std::atomic<int> ended{0};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    try {
      pool.map([](int x) { return x < 0 ? x : hang(); }, std::views::iota(0, 10));
    } catch (const pool_terminated&) {
      ++ended;
    }
  });
  threads.emplace_back([&] {
    try {
      pool.apply(hang);
    } catch (const pool_terminated&) {
      ++ended;
    } catch (const pool_closed&) {  // it may come after terminate()
      ++ended;
    }
  });
  REQUIRE(eventually([&] { return pool.stats().tasks_running == 2; }));
  threads.emplace_back([&] {
    try {
      pool.close();
      pool.join();
      ++ended;
    } catch (...) {
    }
  });
  pool.terminate();
  for (auto& each : threads) each.join();
  CHECK(ended == 3);
}

TEST_CASE("terminate() while workers are being replaced leaves nothing", "[process_pool][crash]") {
  for (int round = 0; round != 20; ++round) {
    CAPTURE(round);
    resources_unchanged guard;
    process_pool pool{3};
    std::vector<future<int>> results;
    for (int i = 0; i != 60; ++i)
      results.push_back(pool.apply_async([](int x) { return x % 2 ? ::raise(SIGKILL) : x; }, i));
    results[static_cast<std::size_t>(round)].wait();
    pool.terminate();
    for (auto& each : results) REQUIRE(each.ready());
  }
}

TEST_CASE("a lazy range after close() yields what was taken, one pool_closed, and the end", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{2};
  auto results = pool.with({.buffersize = 10}).imap(twice, std::views::iota(0));
  for (int i = 0; i != 5; ++i) CHECK(results.next() == 2 * i);
  pool.close();
  int taken = 5;
  bool refused = false;
  for (;;) {
    try {
      const auto next = results.next();
      if (!next) break;
      REQUIRE_FALSE(refused);
      CHECK(*next == 2 * taken++);
    } catch (const pool_closed&) {
      REQUIRE_FALSE(refused);
      refused = true;
    }
  }
  CHECK(refused);
  CHECK(taken >= 10);
  CHECK(taken <= 15);
  CHECK_FALSE(results.next());
  pool.join();
}

TEST_CASE("join() does not wait for inputs that nobody takes", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{2};
  auto results = pool.with({.buffersize = 4}).imap(twice, std::views::iota(0));
  pool.close();
  pool.join();
  for (int i = 0; i != 4; ++i) CHECK(results.next() == 2 * i);
  CHECK_THROWS_AS(results.next(), pool_closed);
  CHECK_FALSE(results.next());
}

TEST_CASE("a lazy range after terminate() throws at what had not finished", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{1};
  auto results = pool.with({.buffersize = 5}).imap([](int x) { return x == 2 ? hang() : x; }, std::views::iota(0, 5));
  CHECK(results.next() == 0);
  CHECK(results.next() == 1);
  pool.terminate();
  CHECK_THROWS_AS(results.next(), pool_terminated);
  CHECK_THROWS_AS(results.next(), pool_terminated);
  CHECK_THROWS_AS(results.next(), pool_terminated);
}

TEST_CASE("futures and lazy ranges may outlive their pool", "[process_pool]") {
  resources_unchanged guard;
  future<std::string> result;
  std::optional<lazy_results<int>> lazy;
  {
    process_pool pool{1};
    result = pool.apply_async([](std::string text) { return text + "!"; }, std::string(100'000, 'x'));
    lazy.emplace(pool.with({.buffersize = 3}).imap(twice, std::vector{1, 2, 3}));
  }
  CHECK(result.get() == std::string(100'000, 'x') + "!");
  CHECK(lazy->next() == 2);
  CHECK(lazy->next() == 4);
  CHECK(lazy->next() == 6);
  CHECK_FALSE(lazy->next());
}

TEST_CASE("in a callback every member may be called, also the destructor", "[process_pool]") {
  resources_unchanged guard;
  SECTION("close and join") {
    process_pool pool{2};
    auto joined = pool.apply_async(twice, 4).then([&](int x) {
      pool.close();
      pool.join();
      return x;
    });
    CHECK(joined.get() == 8);
    pool.join();
  }
  SECTION("terminate") {
    process_pool pool{2};
    auto hung = pool.apply_async(hang);
    auto ended = pool.apply_async(twice, 4).then([&](int) {
      pool.terminate();
      return hung.ready();
    });
    CHECK(ended.get());
    CHECK_THROWS_AS(hung.get(), pool_terminated);
  }
  SECTION("the destructor") {
    auto pool = std::make_unique<process_pool<>>(2);
    auto gone = pool->apply_async(twice, 4).then([&](int x) {
      pool.reset();
      return x;
    });
    CHECK(gone.get() == 8);
    CHECK(pool == nullptr);
  }
  SECTION("submit and wait") {
    process_pool pool{1};
    auto nested = pool.apply_async(twice, 4).then([&](int x) { return pool.apply(twice, x); });
    CHECK(nested.get() == 16);
  }
}

TEST_CASE("a submit that races with close() is refused or runs", "[process_pool]") {
  resources_unchanged guard;
  for (int round = 0; round != 20; ++round) {
    process_pool pool{2};
    std::atomic<int> accepted{0};
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    for (int t = 0; t != 4; ++t) {
      threads.emplace_back([&] {
        std::vector<future<int>> results;
        try {
          for (int i = 0;; ++i) {
            results.push_back(pool.apply_async(twice, i));
            ++accepted;
          }
        } catch (const pool_closed&) {
        }
        for (int i = 0; i != static_cast<int>(results.size()); ++i) {
          if (results[static_cast<std::size_t>(i)].get() == 2 * i) ++right;
        }
      });
    }
    while (accepted < 50) std::this_thread::yield();
    pool.close();
    pool.join();
    for (auto& each : threads) each.join();
    CHECK(right == accepted);
  }
}

TEST_CASE("cancel() of a queued task keeps it from running", "[process_pool][future]") {
  resources_unchanged guard;
  const gate go;
  const shared_words runs(5);
  process_pool pool{1};
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  REQUIRE(eventually([&] { return blocking.running(); }));
  std::vector<future<int>> queued;
  for (int i = 0; i != 5; ++i) {
    queued.push_back(pool.apply_async([counts = runs.in_task()](int x) { return ++counts[x]; }, i));
  }
  CHECK_FALSE(queued[2].running());
  CHECK_FALSE(queued[2].cancelled());
  CHECK(queued[2].cancel());
  CHECK(queued[2].cancelled());
  CHECK(queued[2].ready());
  CHECK_FALSE(queued[2].successful());
  CHECK_FALSE(queued[2].cancel());
  CHECK(queued[4].cancel());
  go.open();
  for (const std::size_t i : {0U, 1U, 3U}) {
    CHECK(queued[i].get() == 1);
  }
  CHECK_THAT(text_of<task_cancelled>([&] { queued[2].get(); }), Catch::StartsWith("procpool: apply_async: "));
  CHECK_THROWS_AS(queued[4].get(), task_cancelled);
  pool.close();
  pool.join();
  CHECK(runs[2] == 0);
  CHECK(runs[4] == 0);
  CHECK(pool.stats().tasks_failed == 2);
}

TEST_CASE("cancel() of a map ends what has not started", "[process_pool][future]") {
  resources_unchanged guard;
  const gate go;
  const shared_words runs(100);
  process_pool pool{1};
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  REQUIRE(eventually([&] { return blocking.running(); }));
  auto mapped = pool.map_async([counts = runs.in_task()](int x) { return ++counts[x]; }, std::views::iota(0, 100), 7);
  auto other = pool.apply_async(twice, 4);
  CHECK(mapped.cancel());
  CHECK(mapped.ready());
  CHECK_THROWS_AS(mapped.get(), task_cancelled);
  go.open();
  CHECK(other.get() == 8);
  for (const auto& count : runs) CHECK(count == 0);
}

TEST_CASE("thousands of cancelled tasks among others", "[process_pool][future]") {
  resources_unchanged guard;
  constexpr int tasks = 6000;
  const gate go;
  const shared_words runs(tasks);
  process_pool pool{3};
  std::vector<future<void>> blocking;
  for (int i = 0; i != 3; ++i) blocking.push_back(pool.apply_async([go = go.in_task()] { go.pass(); }));
  REQUIRE(eventually([&] { return std::ranges::all_of(blocking, [](const auto& each) { return each.running(); }); }));
  std::vector<future<int>> results;
  std::vector<bool> cancelled(tasks);
  for (int i = 0; i != tasks; ++i) {
    // The first half is cancelled while nothing runs, the second while the workers take what they can.
    if (i == tasks / 2) go.open();
    results.push_back(pool.apply_async([counts = runs.in_task()](int x) { return ++counts[x]; }, i));
    if (i % 3 == 2) cancelled[static_cast<std::size_t>(i - 1)] = results[static_cast<std::size_t>(i - 1)].cancel();
  }
  for (std::size_t i = 0; i != tasks; ++i) {
    CAPTURE(i);
    if (i < tasks / 2) CHECK(cancelled[i] == (i % 3 == 1));
    if (cancelled[i]) {
      CHECK_THROWS_AS(results[i].get(), task_cancelled);
    } else {
      CHECK(results[i].get() == 1);
    }
    // One that was cancelled in the second half may have been running.
    if (!cancelled[i] || i < tasks / 2) {
      CHECK(runs[i] == (cancelled[i] ? 0 : 1));
    } else {
      CHECK(runs[i] <= 1);
    }
  }
}

TEST_CASE("running() is true from the start of a task in a worker to its end", "[process_pool][future]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{1};
  const auto pass = [go = go.in_task()] { go.pass(); };
  auto first = pool.apply_async(pass);
  auto second = pool.apply_async(pass);
  CHECK(eventually([&] { return first.running(); }));
  CHECK_FALSE(second.running());
  CHECK_FALSE(first.ready());
  go.open();
  first.wait();
  second.wait();
  CHECK_FALSE(first.running());
  CHECK_FALSE(second.running());
}

TEST_CASE("destroying a lazy range cancels what has not started", "[process_pool]") {
  resources_unchanged guard;
  const gate go;
  const shared_words runs(1000);
  process_pool pool{1};
  {
    auto results = pool.with({.buffersize = 500})
                       .imap(
                           [counts = runs.in_task(), go = go.in_task()](int x) {
                             ++counts[x];
                             go.pass();
                             return x;
                           },
                           std::views::iota(0, 1000));
    REQUIRE(eventually([&] { return runs[0] == 1; }));
  }
  go.open();
  CHECK(pool.apply(twice, 4) == 8);
  CHECK(std::ranges::count_if(runs, [](const auto& count) { return count != 0; }) == 1);
}
