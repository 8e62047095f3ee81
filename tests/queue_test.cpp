// SPDX-License-Identifier: BSL-1.0
// max_queued: submitting waits while enough is waiting; and many threads that submit at once.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <numeric>
#include <ranges>
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

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int twice(int x) { return 2 * x; }

/// Watches a pool from a thread of its own: the most that ever waited, and whether the counts ever disagreed.
class observer {
 public:
  explicit observer(const process_pool<>& pool) : thread_([this, &pool] { run(pool); }) {}
  ~observer() { stop(); }

  void stop() {
    end_ = true;
    if (thread_.joinable()) thread_.join();
  }
  std::size_t most_queued() const { return most_queued_; }
  std::size_t most_running() const { return most_running_; }
  int wrong() const { return wrong_; }

 private:
  void run(const process_pool<>& pool) {
    pool_stats last;
    while (!end_) {
      pool_stats now = pool.stats();
      most_queued_ = std::max(most_queued_, now.tasks_queued);
      most_running_ = std::max(most_running_, now.tasks_running);
      const bool sums =
          now.tasks_submitted == now.tasks_completed + now.tasks_failed + now.tasks_queued + now.tasks_running;
      const bool grows = now.tasks_submitted >= last.tasks_submitted && now.tasks_completed >= last.tasks_completed &&
                         now.tasks_failed >= last.tasks_failed && now.workers_started >= last.workers_started &&
                         now.workers_crashed >= last.workers_crashed && now.workers_retired >= last.workers_retired;
      std::size_t by_worker = 0;
      for (const worker_stats& each : now.workers) by_worker += each.tasks_completed;
      if (!sums || !grows || by_worker != now.tasks_completed) ++wrong_;
      last = std::move(now);
    }
  }

  std::atomic<bool> end_{false};
  std::size_t most_queued_ = 0;
  std::size_t most_running_ = 0;
  int wrong_ = 0;
  std::thread thread_;
};

}  // namespace

TEST_CASE("a submit waits while max_queued tasks wait", "[process_pool]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{pool_options{.processes = 1, .max_queued = 3}};
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  REQUIRE(eventually([&] { return blocking.running(); }));
  std::atomic<int> submitted{0};
  std::atomic<pid_t> submitter{0};
  std::vector<future<int>> results;
  std::thread submitting([&] {
    submitter = ::gettid();
    for (int i = 0; i != 10; ++i) {
      results.push_back(pool.apply_async(twice, i));
      ++submitted;
    }
  });
  REQUIRE(eventually([&] { return pool.stats().tasks_queued == 3; }));
  REQUIRE(eventually([&] { return submitted == 3; }));
  REQUIRE(await_sleep(submitter));
  CHECK(submitted == 3);
  CHECK(pool.stats().tasks_queued == 3);
  go.open();
  submitting.join();
  for (int i = 0; i != 10; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == 2 * i);
}

TEST_CASE("more elements than max_queued come in as others start", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 2, .max_queued = 5}};
  observer watching(pool);
  std::vector<int> expected(2000);
  std::iota(expected.begin(), expected.end(), 0);
  const auto self = [](int x) { return x; };
  CHECK(pool.map(self, expected, 100) == expected);
  CHECK(pool.map_async(self, expected).get() == expected);
  std::vector<int> lazy;
  for (const int each : pool.with({.buffersize = 300}).imap(self, expected, 20)) lazy.push_back(each);
  CHECK(lazy == expected);
  CHECK(pool.transform_reduce(expected, 0, std::plus<>(), self) == 1'999'000);
  watching.stop();
  // A worker that had started an element may step back from it, so one each may wait beyond the five.
  CHECK(watching.most_queued() <= 5 + 2);
  CHECK(watching.wrong() == 0);
}

TEST_CASE("max_queued never blocks in a callback", "[process_pool]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{pool_options{.processes = 1, .max_queued = 1}};
  std::vector<future<int>> results;
  auto submitted = pool.apply_async(twice, 1).then([&, go = go.in_task()](int) {
    auto blocking = pool.apply_async([go] { go.pass(); });
    for (int i = 0; i != 20; ++i) results.push_back(pool.apply_async(twice, i));
    go.open();
    return 20;
  });
  CHECK(submitted.get() == 20);
  for (int i = 0; i != 20; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == 2 * i);
}

TEST_CASE("a submit that waits for room ends when the pool does", "[process_pool]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{pool_options{.processes = 1, .max_queued = 1}};
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  REQUIRE(eventually([&] { return blocking.running(); }));
  std::atomic<int> ended{0};
  std::vector<std::thread> threads;
  for (int t = 0; t != 3; ++t) {
    threads.emplace_back([&] {
      try {
        pool.map(twice, std::views::iota(0, 50));
        ++ended;
      } catch (const pool_terminated&) {
        ended += 100;
      } catch (const pool_closed&) {
        ended += 100;
      }
    });
  }
  REQUIRE(eventually([&] { return pool.stats().tasks_queued == 1; }));
  SECTION("terminated") {
    pool.terminate();
    for (auto& each : threads) each.join();
    CHECK(ended == 300);
    CHECK_THROWS_AS(blocking.get(), pool_terminated);
  }
  SECTION("closed: what was begun is finished") {
    REQUIRE(eventually([&] { return pool.stats().tasks_submitted >= 2; }));
    pool.close();
    go.open();
    for (auto& each : threads) each.join();
    CHECK(ended % 100 + ended / 100 == 3);
    CHECK(ended % 100 >= 1);
    pool.join();
    CHECK(pool.stats().tasks_failed == 0);
  }
}

TEST_CASE("max_queued and workers that die", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 2, .max_queued = 2}};
  observer watching(pool);
  std::vector<future<int>> results;
  for (int i = 0; i != 300; ++i) {
    results.push_back(pool.apply_async([](int x) { return x % 10 == 9 ? ::raise(SIGKILL) : x; }, i));
  }
  for (int i = 0; i != 300; ++i) {
    auto& each = results[static_cast<std::size_t>(i)];
    if (i % 10 == 9) {
      CHECK_THROWS_AS(each.get(), worker_crashed);
    } else {
      CHECK(each.get() == i);
    }
  }
  watching.stop();
  CHECK(watching.wrong() == 0);
}

TEST_CASE("many threads submit to one pool at once", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{3};
  observer watching(pool);
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t != 8; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round != 20; ++round) {
        const int base = t * 1000 + round;
        std::vector<future<int>> results;
        for (int i = 0; i != 20; ++i) results.push_back(pool.apply_async(twice, base + i));
        const auto mapped = pool.map(twice, std::views::iota(base, base + 50));
        bool good = pool.apply(twice, base) == 2 * base;
        for (int i = 0; i != 20; ++i) good = good && results[static_cast<std::size_t>(i)].get() == 2 * (base + i);
        for (int i = 0; i != 50; ++i) good = good && mapped[static_cast<std::size_t>(i)] == 2 * (base + i);
        int next = base;
        for (const int each : pool.imap(twice, std::views::iota(base, base + 30), 4)) good = good && each == 2 * next++;
        if (good && next == base + 30) ++right;
      }
    });
  }
  for (auto& each : threads) each.join();
  watching.stop();
  CHECK(right == 160);
  CHECK(watching.wrong() == 0);
  CHECK(watching.most_running() <= 3);
  const auto now = pool.stats();
  CHECK(now.tasks_submitted == 160 * 101);
  CHECK(now.tasks_completed == 160 * 101);
}

TEST_CASE("the counts agree while workers die and are replaced", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 3, .max_tasks_per_child = 50}};
  observer watching(pool);
  const auto outcomes = pool.try_map(
      [](int x) -> int {
        if (x % 40 == 13) ::raise(SIGKILL);
        if (x % 40 == 26) throw std::runtime_error("no");
        return x;
      },
      std::views::iota(0, 4000), 30);
  watching.stop();
  CHECK(watching.wrong() == 0);
  CHECK(std::ranges::count_if(outcomes, [](const auto& each) { return each.has_value(); }) == 3800);
  const auto now = pool.stats();
  CHECK(now.tasks_submitted == 4000);
  CHECK(now.tasks_completed == 3800);
  CHECK(now.tasks_failed == 200);
  CHECK(now.workers_crashed == 100);
  CHECK(now.workers_retired > 0);
}

TEST_CASE("stats tells of each worker", "[process_pool]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{2};
  auto now = pool.stats();
  REQUIRE(now.workers.size() == 2);
  for (std::size_t i = 0; i != 2; ++i) {
    CHECK(now.workers[i].index == i);
    CHECK(now.workers[i].pid > 0);
    CHECK(now.workers[i].generation == 0);
    CHECK(now.workers[i].alive);
    CHECK(now.workers[i].tasks_completed == 0);
    CHECK(now.workers[i].resident_bytes > 100'000);
  }
  CHECK(now.workers[0].pid != now.workers[1].pid);
  CHECK(now.workers_started == 2);
  CHECK(now.tasks_submitted == 0);

  auto blocking = pool.apply_async([go = go.in_task()] {
    go.pass();
    return this_worker::index();
  });
  CHECK(eventually([&] { return pool.stats().tasks_running == 1; }));
  const auto longest_busy = [&] {
    now = pool.stats();
    return std::max(now.workers[0].busy, now.workers[1].busy);
  };
  CHECK(eventually([&] { return longest_busy() > 20ms; }));
  go.open();
  const std::size_t index = blocking.get();
  CHECK(pool.stats().workers[index].tasks_completed == 1);
  CHECK(pool.stats().workers[index].busy > 20ms);
  CHECK(pool.stats().workers[1 - index].busy < pool.stats().workers[index].busy);
  const auto idle = pool.stats().workers[index].idle;
  CHECK(eventually([&] { return pool.stats().workers[index].idle > idle + 5ms; }));
  pool.close();
  pool.join();
  now = pool.stats();
  CHECK(now.tasks_completed == 1);
  REQUIRE(now.workers.size() == 2);
  for (const worker_stats& each : now.workers) {
    CHECK_FALSE(each.alive);
    CHECK(each.pid == 0);
  }
}

TEST_CASE("a worker that stats calls alive has a process", "[process_pool]") {
  resources_unchanged guard;
  for (int round = 0; round != 50; ++round) {
    process_pool pool{3};
    const auto now = pool.stats();
    CHECK(now.workers_started == 3);
    for (const worker_stats& each : now.workers) {
      CHECK(each.alive);
      REQUIRE(each.pid > 0);
      CHECK(::kill(each.pid, 0) == 0);
    }
  }
}
