// SPDX-License-Identifier: BSL-1.0
// No worker is idle while a task waits behind a slow one. Each test would wait for ever if one were: a task is slow
// until all the others are done.
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <ranges>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int twice(int x) { return 2 * x; }

/// In a task: waits until `word` has reached `goal`; not for ever, so that a test that fails ends.
void await(const shared_words::word& word, int goal) {
  if (!eventually([&] { return word >= goal; }, 20s)) std::_Exit(99);
}

/// In a task: a slow one ends when `others` have, and does not count among them.
void run_one(bool slow, shared_words::word& done, int others) {
  if (slow) {
    await(done, others);
  } else {
    ++done;
  }
}

std::vector<int> numbers(int count) {
  std::vector<int> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

TEST_CASE("a slow task holds up none that was submitted before or after it", "[process_pool][balance]") {
  resources_unchanged guard;
  const int workers = GENERATE(2, 3, 4, 8);
  const int slow = GENERATE(0, 1, 50, 198, 199);
  CAPTURE(workers, slow);
  const shared_words done(1);
  process_pool pool{workers};
  std::vector<future<int>> results;
  for (int i = 0; i != 200; ++i) {
    results.push_back(pool.apply_async(
        [slow, done = done.in_task()](int x) {
          run_one(x == slow, *done, 199);
          return x;
        },
        i));
  }
  for (int i = 0; i != 200; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i);
}

TEST_CASE("one worker that is free does the work of all", "[process_pool][balance]") {
  resources_unchanged guard;
  const int workers = GENERATE(2, 3, 8);
  CAPTURE(workers);
  const shared_words done(1);
  process_pool pool{workers};
  std::vector<future<int>> results;
  // All workers but one are blocked, each by a task in the midst of the others.
  for (int i = 0; i != 300; ++i) {
    const bool slow = i % 10 == 5 && i / 10 < workers - 1;
    results.push_back(pool.apply_async(
        [slow, goal = 300 - (workers - 1), done = done.in_task()](int x) {
          run_one(slow, *done, goal);
          return x;
        },
        i));
  }
  for (int i = 0; i != 300; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i);
}

TEST_CASE("what lies behind a slow element in its chunk runs elsewhere", "[process_pool][balance]") {
  resources_unchanged guard;
  const int workers = GENERATE(2, 3, 8);
  const std::size_t chunksize =
      GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{50}, std::size_t{100});
  const int slow = GENERATE(0, 13, 99);
  CAPTURE(workers, chunksize, slow);
  const shared_words done(1);
  const shared_words runs(100);
  process_pool pool{workers};
  const auto work = [slow, done = done.in_task(), counts = runs.in_task()](int x) {
    ++counts[x];
    run_one(x == slow, *done, 99);
    return x;
  };
  CHECK(pool.map(work, std::views::iota(0, 100), chunksize) == numbers(100));
  for (const auto& count : runs) CHECK(count == 1);
}

TEST_CASE("slow elements of one chunk, as many as there are workers less one", "[process_pool][balance]") {
  resources_unchanged guard;
  const int workers = GENERATE(2, 4, 8);
  CAPTURE(workers);
  const shared_words done(1);
  process_pool pool{workers};
  const auto work = [workers, done = done.in_task()](int x) {
    run_one(x < workers - 1, *done, 400 - (workers - 1));
    return x;
  };
  CHECK(pool.map(work, std::views::iota(0, 400), 400) == numbers(400));
}

TEST_CASE("elements that need each other run at the same time", "[process_pool][balance]") {
  resources_unchanged guard;
  const int workers = GENERATE(1, 2, 4, 8);
  CAPTURE(workers);
  process_pool pool{workers};
  for (int round = 0; round != 5; ++round) {
    const auto size = static_cast<std::size_t>(workers);
    // In one chunk, yet each waits until all of them have started.
    auto meeting = pool.make_shared_array<int>(1);
    const auto met = pool.starmap(
        [](shared_array<int> place, int all) {
          std::atomic_ref<int> arrived(place[0]);
          ++arrived;
          return eventually([&] { return arrived == all; }, 20s);
        },
        std::vector(size, std::tuple(meeting, workers)), size);
    CHECK(std::ranges::count(met, true) == workers);
  }
}

TEST_CASE("lazy ranges go on around a slow element", "[process_pool][balance]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{1}, std::size_t{10});
  CAPTURE(chunksize);
  const shared_words done(1);
  process_pool pool{2};
  const auto work = [done = done.in_task()](int x) {
    run_one(x == 3, *done, 99);
    return x;
  };
  SECTION("in order, when the buffer is large enough") {
    std::vector<int> all;
    for (const int each : pool.with({.buffersize = 100}).imap(work, std::views::iota(0, 100), chunksize))
      all.push_back(each);
    CHECK(all == numbers(100));
  }
  SECTION("unordered, with a small buffer") {
    std::vector<int> all;
    for (const int each : pool.with({.buffersize = 20}).imap_unordered(work, std::views::iota(0, 100), chunksize)) {
      all.push_back(each);
    }
    // Behind all others, but for those that were done and not yet yielded: as many as are taken ahead.
    CHECK(std::ranges::find(all, 3) - all.begin() >= 80);
    std::ranges::sort(all);
    CHECK(all == numbers(100));
  }
}

TEST_CASE("a broadcast that waits for a busy worker holds up no task", "[process_pool][balance]") {
  resources_unchanged guard;
  const shared_words done(1);
  const shared_words reached(3);
  const gate first_runs;
  process_pool pool{3};
  // One worker is busy until all small tasks are done; small ones are submitted before and behind the broadcast.
  auto slow = pool.apply_async([done = done.in_task(), runs = first_runs.in_task()] {
    runs.open();
    await(*done, 400);
  });
  first_runs.pass();
  const auto small = [done = done.in_task()] { ++*done; };
  std::vector<future<void>> results;
  for (int i = 0; i != 200; ++i) results.push_back(pool.apply_async(small));
  std::thread broadcasting([&] { pool.broadcast([reached = reached.in_task()] { ++reached[this_worker::index()]; }); });
  for (int i = 0; i != 200; ++i) results.push_back(pool.apply_async(small));
  for (auto& each : results) each.get();
  slow.get();
  broadcasting.join();
  for (const auto& count : reached) CHECK(count == 1);
}

TEST_CASE("tasks that were posted before a broadcast leave a worker that is slow", "[process_pool][balance]") {
  resources_unchanged guard;
  const shared_words done(1);
  const gate both_run;
  const shared_words started(1);
  process_pool pool{2};
  // Both workers are busy while the lanes fill; then one goes on being slow until the other has done everything.
  const auto slow = [done = done.in_task(), started = started.in_task(), go = both_run.in_task()](int goal) {
    ++*started;
    go.pass();
    await(*done, goal);
  };
  auto first = pool.apply_async(slow, 50);
  auto second = pool.apply_async(slow, 0);
  REQUIRE(eventually([&] { return started[0] == 2; }));
  std::vector<future<void>> results;
  for (int i = 0; i != 50; ++i) results.push_back(pool.apply_async([done = done.in_task()] { ++*done; }));
  const std::size_t before = pool.stats().tasks_submitted;
  std::thread broadcasting([&] { pool.broadcast([] {}); });
  REQUIRE(eventually([&] { return pool.stats().tasks_submitted == before + 2; }));
  both_run.open();
  for (auto& each : results) CHECK_NOTHROW(each.get());
  CHECK_NOTHROW(first.get());
  CHECK_NOTHROW(second.get());
  broadcasting.join();
}

TEST_CASE("the work behind a task that dies late runs elsewhere meanwhile", "[process_pool][balance][crash]") {
  resources_unchanged guard;
  const shared_words done(1);
  process_pool pool{2};
  const auto outcomes = pool.try_map(
      [done = done.in_task()](int x) {
        if (x != 5) return ++*done;
        await(*done, 99);
        return ::raise(SIGSEGV);
      },
      std::views::iota(0, 100), 100);
  for (std::size_t i = 0; i != 100; ++i) CHECK(outcomes[i].has_value() == (i != 5));
}

TEST_CASE("workers that retire leave no task behind a slow one", "[process_pool][balance]") {
  resources_unchanged guard;
  const shared_words done(1);
  process_pool pool{pool_options{.processes = 2, .max_tasks_per_child = 7}};
  const auto work = [done = done.in_task()](int x) {
    run_one(x == 3, *done, 99);
    return x;
  };
  CHECK(pool.map(work, std::views::iota(0, 100), 50) == numbers(100));
}

TEST_CASE("a hundred thousand calls", "[process_pool][balance]") {
  resources_unchanged guard;
  constexpr int tasks = 100'000;
  process_pool pool{4};
  std::vector<future<int>> results;
  results.reserve(tasks);
  for (int i = 0; i != tasks; ++i) results.push_back(pool.apply_async(twice, i));
  int wrong = 0;
  for (int i = 0; i != tasks; ++i) wrong += results[static_cast<std::size_t>(i)].get() != 2 * i;
  CHECK(wrong == 0);
  CHECK(pool.stats().tasks_completed == tasks);
}

TEST_CASE("a hundred thousand elements, one each or in one chunk", "[process_pool][balance]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{1}, std::size_t{0}, std::size_t{100'000});
  CAPTURE(chunksize);
  process_pool pool{4};
  const auto in = numbers(100'000);
  CHECK(pool.map([](int x) { return x; }, in, chunksize) == in);
  const auto now = pool.stats();
  CHECK(now.tasks_completed == 100'000);
  CHECK(std::ranges::all_of(now.workers, [](const auto& each) { return each.tasks_completed > 0; }));
}

TEST_CASE("results come in input order whatever each takes", "[process_pool][balance]") {
  resources_unchanged guard;
  process_pool pool{4};
  const auto uneven = [](int x) {
    for (int i = 0; i != x * 7919 % 97; ++i) ::sched_yield();
    return x;
  };
  CHECK(pool.map(uneven, std::views::iota(0, 1000), 3) == numbers(1000));
  std::vector<int> lazy;
  for (const int each : pool.imap(uneven, std::views::iota(0, 1000), 2)) lazy.push_back(each);
  CHECK(lazy == numbers(1000));
  lazy.clear();
  for (const int each : pool.imap_unordered(uneven, std::views::iota(0, 1000), 2)) lazy.push_back(each);
  std::ranges::sort(lazy);
  CHECK(lazy == numbers(1000));
}

TEST_CASE("a lane that is full takes more as it empties", "[process_pool][balance]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{1};
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  std::vector<future<std::size_t>> results;
  // Far more chunks than a lane has slots for, and far more bytes than its ring has.
  for (std::size_t i = 0; i != 3000; ++i) {
    results.push_back(pool.apply_async([](std::string text) { return text.size(); }, std::string(i % 5000, 'x')));
  }
  go.open();
  for (std::size_t i = 0; i != 3000; ++i) CHECK(results[i].get() == i % 5000);
}
