// SPDX-License-Identifier: BSL-1.0
// call_options::timeout and grace, this_worker::stop_requested().
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
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

[[noreturn]] int spin() {
  for (std::atomic<unsigned> i{0};; ++i) {
  }
}

}  // namespace

TEST_CASE("a task that runs past its time limit ends in task_timeout, and its worker is replaced", "[time_limit]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t first = pool.apply(own_pid);
  for (int (*endless)() : {hang, spin}) {
    const auto error = thrown_by<task_timeout>([&] { pool.with({.timeout = 30ms}).apply(endless); });
    CHECK(error.limit() == 30ms);
    CHECK(std::string(error.what()) == "procpool: apply: it ran longer than its time limit of 30 ms");
  }
  CHECK(pool.apply(own_pid) != first);
  const pool_stats now = pool.stats();
  CHECK(now.workers[0].generation == 2);
  CHECK(now.tasks_failed == 2);
  CHECK(now.tasks_completed == 2);
}

TEST_CASE("a task within its time limit is left alone", "[time_limit]") {
  resources_unchanged guard;
  process_pool pool{2};
  auto patient = pool.with({.timeout = 1h});
  CHECK(patient.apply(twice, 4) == 8);
  std::vector<int> expected;
  for (int i = 0; i != 1000; ++i) expected.push_back(2 * i);
  CHECK(patient.map(twice, std::views::iota(0, 1000)) == expected);
  CHECK(pool.with({.timeout = std::chrono::nanoseconds::max()}).apply(twice, 4) == 8);
  CHECK(pool.stats().workers_crashed == 0);
}

TEST_CASE("the clock of a task starts when it starts, not when it is submitted", "[time_limit]") {
  resources_unchanged guard;
  const gate hold;
  process_pool pool{1};
  auto first = pool.apply_async([held = hold.in_task()] { held.pass(); });
  auto second = pool.with({.timeout = 2s}).apply_async(twice, 21);
  CHECK(second.wait_for(2500ms) == std::future_status::timeout);  // longer than its limit, in the queue
  hold.open();
  CHECK(second.get() == 42);
  first.get();
}

TEST_CASE("each element of a chunk has the whole time limit", "[time_limit]") {
  resources_unchanged guard;
  process_pool pool{1};
  const std::size_t chunksize = GENERATE(std::size_t{1}, std::size_t{5}, std::size_t{40});
  const auto outcomes = pool.with({.timeout = 300ms})
                            .try_map(
                                [](int x) {
                                  if (x % 10 == 3) hang();
                                  std::this_thread::sleep_for(10ms);
                                  return x;
                                },
                                std::views::iota(0, 40), chunksize);
  REQUIRE(outcomes.size() == 40);
  for (std::size_t i = 0; i != 40; ++i) {
    CAPTURE(i);
    if (i % 10 == 3) {
      CHECK(held_by<task_timeout>(outcomes[i].error()).limit() == 300ms);
    } else {
      REQUIRE(outcomes[i].has_value());
      CHECK(*outcomes[i] == static_cast<int>(i));
    }
  }
  CHECK(pool.stats().workers_crashed == 4);
}

TEST_CASE("a time-out never hits the next task", "[time_limit]") {
  resources_unchanged guard;
  constexpr int rounds = 300;
  const shared_words runs(rounds * 4);
  process_pool pool{1};
  std::vector<future<int>> timed;
  std::vector<future<int>> innocent;
  const auto count = [counts = runs.in_task()](int x) {
    ++counts[x];
    return x;
  };
  for (int i = 0; i != rounds; ++i) {
    // Some end just before the kill, some just after, some never.
    timed.push_back(pool.with({.timeout = 200us})
                        .apply_async(
                            [](int x) {
                              const auto end = std::chrono::steady_clock::now() +
                                               std::chrono::microseconds(x % 3 == 0 ? 1'000'000'000 : 150 + x % 100);
                              while (std::chrono::steady_clock::now() < end) {
                              }
                              return x;
                            },
                            i));
    for (int k = 0; k != 4; ++k) innocent.push_back(pool.apply_async(count, 4 * i + k));
  }
  int late = 0;
  for (int i = 0; i != rounds; ++i) {
    try {
      const int value = timed[static_cast<std::size_t>(i)].get();
      CHECK(value == i);
    } catch (const task_timeout&) {
      ++late;
    }
  }
  CHECK(late >= rounds / 3);
  for (int i = 0; i != 4 * rounds; ++i) CHECK(innocent[static_cast<std::size_t>(i)].get() == i);
  for (const auto& each : runs) CHECK(each == 1);
}

TEST_CASE("a timed task behind one that is not, and one posted while the pool sleeps, are timed", "[time_limit]") {
  resources_unchanged guard;
  const gate hold;
  process_pool pool{1};
  auto first = pool.apply_async([held = hold.in_task()] { held.pass(); });
  auto second = pool.with({.timeout = 20ms}).apply_async(hang);
  CHECK(second.wait_for(50ms) == std::future_status::timeout);
  hold.open();
  first.get();
  CHECK_THROWS_AS(second.get(10s), task_timeout);
  for (int i = 0; i != 3; ++i) {
    REQUIRE(await_threads_asleep(::getpid()));
    CHECK_THROWS_AS(pool.with({.timeout = 20ms}).apply_async(hang).get(10s), task_timeout);
  }
}

TEST_CASE("map throws the time-out of the lowest element, lazy ranges at its place", "[time_limit]") {
  resources_unchanged guard;
  process_pool pool{2};
  const auto work = [](int x) {
    if (x == 7) hang();
    return x;
  };
  const auto error =
      thrown_by<task_timeout>([&] { pool.with({.timeout = 100ms}).map(work, std::views::iota(0, 20), 4); });
  CHECK(std::string(error.what()) == "procpool: map: task 7 of 20: it ran longer than its time limit of 100 ms");
  auto results = pool.with({.timeout = 100ms}).imap(work, std::views::iota(0, 20), 3);
  int seen = 0;
  for (auto it = results.begin(); it != results.end(); ++it, ++seen) {
    if (seen == 7) {
      CHECK_THROWS_AS(*it, task_timeout);
    } else {
      CHECK(*it == seen);
    }
  }
  CHECK(seen == 20);
}

TEST_CASE("a task that returns within its grace keeps its worker, and its result is dropped", "[time_limit][grace]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t worker = pool.apply(own_pid);
  for (int i = 0; i != 5; ++i) {
    auto late = pool.with({.timeout = 20ms, .grace = 1h}).apply_async(obey);
    auto next = pool.apply_async(own_pid);
    CHECK_THROWS_AS(late.get(), task_timeout);
    CHECK(next.get() == worker);
  }
  CHECK(pool.stats().workers_crashed == 0);
  CHECK(pool.stats().tasks_failed == 5);
  // An exception that it throws on its way out does not count either.
  CHECK_THROWS_AS(pool.with({.timeout = 20ms, .grace = 1h}).apply([] {
    obey();
    throw std::runtime_error("stopped");
  }),
                  task_timeout);
}

TEST_CASE("a task that does not return within its grace is killed", "[time_limit][grace]") {
  resources_unchanged guard;
  process_pool pool{2};
  const auto before = std::chrono::steady_clock::now();
  CHECK_THROWS_AS(pool.with({.timeout = 20ms, .grace = 50ms}).apply(spin), task_timeout);
  CHECK(std::chrono::steady_clock::now() - before >= 70ms);
  CHECK(eventually([&] { return pool.stats().workers_crashed == 1; }));
  CHECK(pool.apply(twice, 4) == 8);
}

TEST_CASE("a task that overwrites within its grace that it has started is killed all the same", "[time_limit][grace]") {
  resources_unchanged guard;
  process_pool pool{1};
  auto hung = pool.with({.timeout = 20ms, .grace = 50ms}).apply_async([] {
    obey();
    auto* const claimed = const_cast<std::atomic<std::uint64_t>*>(detail::process_worker_context.words.claimed);
    claimed->fetch_sub(1);
    for (;;) ::pause();
  });
  CHECK_THROWS_AS(hung.get(20s), task_timeout);
  pool.terminate();  // else it would hang, if it did
}

TEST_CASE("a death within the grace is the time-out's", "[time_limit][grace]") {
  resources_unchanged guard;
  process_pool pool{1};
  CHECK_THROWS_AS(pool.with({.timeout = 20ms, .grace = 1h}).apply([] {
    obey();
    ::raise(SIGSEGV);
  }),
                  task_timeout);
  CHECK(pool.apply(twice, 4) == 8);
}

TEST_CASE("stop_requested is false for the task after one that was asked to stop", "[this_worker][grace]") {
  resources_unchanged guard;
  process_pool pool{1};
  CHECK_FALSE(this_worker::stop_requested());
  for (int i = 0; i != 20; ++i) {
    CHECK_FALSE(pool.apply([] { return this_worker::stop_requested(); }));
    CHECK_THROWS_AS(pool.with({.timeout = 5ms, .grace = 1h}).apply(obey), task_timeout);
    CHECK_FALSE(pool.apply([] { return this_worker::stop_requested(); }));
  }
}

TEST_CASE("every thread of a worker sees that it is to stop; its children do not", "[this_worker][grace]") {
  resources_unchanged guard;
  const shared_words seen(2);
  process_pool pool{1};
  CHECK_THROWS_AS(pool.with({.timeout = 20ms, .grace = 1h}).apply([words = seen.in_task()] {
    std::thread([&] {
      obey();
      ++words[0];
    }).join();
    const pid_t child = ::fork();
    if (child == 0) {
      if (!this_worker::stop_requested()) ++words[1];
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
  }),
                  task_timeout);
  CHECK(seen[0] == 1);
  CHECK(seen[1] == 1);
}

TEST_CASE("negative durations are refused", "[call_options]") {
  process_pool pool{1};
  CHECK_THROWS_AS(pool.with({.timeout = -1ns}), std::invalid_argument);
  CHECK_THROWS_AS(pool.with({.grace = -1ns}), std::invalid_argument);
  CHECK(pool.with({.timeout = 0s, .grace = 0s}).apply(twice, 1) == 2);
}

TEST_CASE("in_process refuses time limits", "[in_process]") {
  process_pool<in_process> pool{1};
  CHECK_THROWS_AS(pool.with({.timeout = 1s}), not_supported);
  CHECK(pool.with({.grace = 1s, .retries = 3}).apply(twice, 4) == 8);
  CHECK_THROWS_AS(process_pool<in_process>(pool_options{.max_memory_per_child = 1}), not_supported);
  CHECK_FALSE(pool.apply([] { return this_worker::stop_requested(); }));
}

TEST_CASE("time limits end with terminate() and the pool's end", "[time_limit]") {
  resources_unchanged guard;
  {
    process_pool pool{2};
    auto late = pool.with({.timeout = 20ms, .grace = 1h}).apply_async(hang);
    CHECK(late.wait_for(60ms) == std::future_status::timeout);
    pool.terminate();
    CHECK(late.ready());
    CHECK_THROWS_AS(late.get(), error);
  }
  future<int> late;
  {
    process_pool pool{2};
    late = pool.with({.timeout = 20ms}).apply_async(hang);
  }
  CHECK_THROWS_AS(late.get(), task_timeout);
}

TEST_CASE("many time limits at once", "[time_limit]") {
  resources_unchanged guard;
  process_pool pool{4};
  std::vector<future<int>> results;
  for (int i = 0; i != 400; ++i) {
    results.push_back(pool.with({.timeout = i % 10 == 0 ? 10ms : 10'000ms})
                          .apply_async(
                              [](int x) {
                                if (x % 10 == 0) hang();
                                return x;
                              },
                              i));
  }
  for (int i = 0; i != 400; ++i) {
    auto& each = results[static_cast<std::size_t>(i)];
    if (i % 10 == 0) {
      CHECK_THROWS_AS(each.get(), task_timeout);
    } else {
      CHECK(each.get() == i);
    }
  }
  CHECK(pool.stats().workers_crashed == 40);
}

TEST_CASE("a time limit counts from the start in the worker, however long that took", "[time_limit]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t worker = pool.apply(own_pid);
  ::kill(worker, SIGSTOP);  // it starts nothing until it goes on
  auto limited = pool.with({.timeout = 400ms});
  auto cancelled = limited.apply_async(own_pid);
  std::this_thread::sleep_for(300ms);
  CHECK(cancelled.cancel());
  auto late = limited.apply_async([] {
    std::this_thread::sleep_for(100ms);
    return ::getpid();
  });
  std::this_thread::sleep_for(500ms);
  ::kill(worker, SIGCONT);
  CHECK(late.get() == worker);
}
