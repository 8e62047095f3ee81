// SPDX-License-Identifier: BSL-1.0
// What a worker's death costs: the task that it ran, and nothing else.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <numeric>
#include <ranges>
#include <stdexcept>
#include <string>
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
#include "support/tasks.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

std::size_t own_index() { return this_worker::index(); }
std::size_t own_generation() { return this_worker::generation(); }

void check_death(const worker_crashed& crash, const death& expected) {
  INFO(crash.what());
  CHECK(crash.signal() == expected.signal);
  CHECK(crash.exit_status() == expected.exit_status);
  CHECK(crash.pid() > 0);
  CHECK(crash.pid() != ::getpid());
  CHECK(crash.max_resident_bytes() > 100'000);
  CHECK(crash.max_resident_bytes() < (std::size_t{1} << 40));
}

/// Waits until every worker is there.
bool all_alive(process_pool<>& pool) {
  return eventually([&] {
    const auto now = pool.stats();
    return std::ranges::all_of(now.workers, [](const worker_stats& each) { return each.alive; });
  });
}

}  // namespace

TEST_CASE("whatever ends a worker costs exactly the task that it ran", "[process_pool][crash]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      process_pool pool{2};
      auto before = pool.apply_async(twice, 1);
      auto doomed = pool.apply_async(how.die);
      std::vector<future<int>> others;
      for (int i = 0; i != 50; ++i) others.push_back(pool.apply_async(twice, i));

      check_death(thrown_by<worker_crashed>([&] { doomed.get(); }), how);
      CHECK(before.get() == 2);
      for (int i = 0; i != 50; ++i) CHECK(others[static_cast<std::size_t>(i)].get() == 2 * i);

      CHECK(all_alive(pool));
      CHECK(pool.apply(twice, 21) == 42);
      const pool_stats now = pool.stats();
      CHECK(now.workers_crashed == 1);
      CHECK(now.workers_started == 3);
      CHECK(now.workers_retired == 0);
      CHECK(now.tasks_submitted == 53);
      CHECK(now.tasks_completed == 52);
      CHECK(now.tasks_failed == 1);
      CHECK(now.workers[0].generation + now.workers[1].generation == 1);
    }
  }
}

TEST_CASE("a death in a chunk costs the one element", "[process_pool][crash]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      const shared_words runs(40);
      process_pool pool{2};
      const auto outcomes = pool.try_map(
          [die = how.die, counts = runs.in_task()](int x) {
            ++counts[x];
            return x == 17 ? die() : 2 * x;
          },
          std::views::iota(0, 40), 20);
      REQUIRE(outcomes.size() == 40);
      for (std::size_t i = 0; i != 40; ++i) {
        CAPTURE(i);
        CHECK(runs[i] == 1);
        if (i == 17) {
          REQUIRE(outcomes[i].has_error());
          check_death(held_by<worker_crashed>(outcomes[i].error()), how);
        } else {
          REQUIRE(outcomes[i].has_value());
          CHECK(*outcomes[i] == 2 * static_cast<int>(i));
        }
      }
    }
  }
}

TEST_CASE("a lazy range throws a death at its element and goes on", "[process_pool][crash]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      process_pool pool{2};
      auto results = pool.imap([die = how.die](int x) { return x % 10 == 4 ? die() : x; }, std::views::iota(0, 30), 3);
      int expected = 0;
      int crashes = 0;
      for (auto it = results.begin(); it != results.end(); ++it, ++expected) {
        if (expected % 10 == 4) {
          check_death(thrown_by<worker_crashed>([&] { *it; }), how);
          ++crashes;
        } else {
          CHECK(*it == expected);
        }
      }
      CHECK(expected == 30);
      CHECK(crashes == 3);
    }
  }
}

TEST_CASE("a broadcast throws the death of the lowest index and reaches all others", "[process_pool][crash]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      const shared_words runs(4);
      process_pool pool{4};
      const auto before = pool.stats();
      const auto crash = thrown_by<worker_crashed>([&] {
        pool.broadcast([die = how.die, counts = runs.in_task()] {
          ++counts[this_worker::index()];
          if (this_worker::index() == 1 || this_worker::index() == 3) die();
        });
      });
      check_death(crash, how);
      CHECK(crash.pid() == before.workers[1].pid);
      for (const auto& count : runs) CHECK(count == 1);
      CHECK(pool.stats().workers_crashed == 2);
      pool.broadcast([counts = runs.in_task()] { ++counts[this_worker::index()]; });
      for (const auto& count : runs) CHECK(count == 2);
    }
  }
}

TEST_CASE("a death in the initializer of a replacement is followed by another start", "[process_pool][crash]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      const shared_words starts(1);
      process_pool pool{pool_options{.processes = 1, .initializer = [die = how.die, starts = starts.in_task()] {
                                       const int start = ++starts[0];
                                       if (start == 2 || start == 3) die();
                                     }}};
      auto doomed = pool.apply_async([] { return ::raise(SIGKILL); });
      auto next = pool.apply_async(twice, 4);
      CHECK_THROWS_AS(doomed.get(), worker_crashed);
      CHECK(next.get() == 8);
      CHECK(starts[0] == 4);
    }
  }
}

TEST_CASE("an exception of a task costs no worker", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t worker = pool.apply(own_pid);
  auto failing = pool.apply_async([]() -> int { throw std::out_of_range("too far"); });
  auto other = pool.apply_async(twice, 4);
  const auto error = thrown_by<std::out_of_range>([&] { failing.get(); });
  CHECK(std::string(error.what()) == "too far");
  CHECK(other.get() == 8);
  CHECK(pool.apply(own_pid) == worker);
  CHECK(pool.stats().workers_crashed == 0);
  CHECK(pool.stats().tasks_failed == 1);
}

TEST_CASE("a death is told with operation, place and cause", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{2};
  SECTION("of an element of a map") {
    const auto crash = thrown_by<worker_crashed>(
        [&] { pool.map([](int x) { return x == 17 ? ::raise(SIGSEGV) : x; }, std::views::iota(0, 200)); });
    CHECK(std::string(crash.what()) ==
          "procpool: map: task 17 of 200: worker " + std::to_string(crash.pid()) + " ended by signal 11 (SIGSEGV)");
  }
  SECTION("of a single call") {
    const auto crash = thrown_by<worker_crashed>([&] { pool.apply([] { ::_exit(7); }); });
    CHECK(std::string(crash.what()) ==
          "procpool: apply: worker " + std::to_string(crash.pid()) + " exited with status 7");
  }
  SECTION("by SIGKILL, which anyone may have sent") {
    const auto crash = thrown_by<worker_crashed>([&] { pool.apply([] { ::raise(SIGKILL); }); });
    CHECK_THAT(crash.what(), Catch::Contains("ended by signal 9 (SIGKILL)") && Catch::Contains("not sent by the pool"));
  }
  SECTION("by exec, for which the pool kills") {
    const auto crash = thrown_by<worker_crashed>([&] { pool.apply(ways_to_die::run_sleep); });
    CHECK_THAT(crash.what(), Catch::Contains("ended by signal 9 (SIGKILL)") && Catch::Contains("sent by the pool: ") &&
                                 !Catch::Contains("not sent by the pool"));
  }
}

TEST_CASE("a death tells how much memory the worker used", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  constexpr std::size_t size = std::size_t{200} << 20;
  const auto hungry = thrown_by<worker_crashed>([&] {
    pool.apply([] {
      std::vector<char> much(size, 'x');
      ::raise(much[size / 2] == 'x' ? SIGKILL : SIGTERM);
    });
  });
  CHECK(hungry.signal() == SIGKILL);
  CHECK(hungry.max_resident_bytes() >= size);
  const auto modest = thrown_by<worker_crashed>([&] { pool.apply([] { ::raise(SIGKILL); }); });
  CHECK(modest.max_resident_bytes() < hungry.max_resident_bytes() - size / 2);
}

TEST_CASE("the pid of a death is the worker's", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t first = pool.apply(own_pid);
  CHECK(first == pool.stats().workers[0].pid);
  const auto crash = thrown_by<worker_crashed>([&] { pool.apply(ways_to_die::raise_segv); });
  CHECK(crash.pid() == first);
  CHECK(pool.apply(own_pid) != first);
}

TEST_CASE("a replacement has the index of the dead and the next generation", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{3};
  for (std::size_t generation = 1; generation != 4; ++generation) {
    // Only the worker with index 1 dies.
    CHECK_THROWS_AS(pool.broadcast([] {
      if (this_worker::index() == 1) ::raise(SIGSEGV);
    }),
                    worker_crashed);
    REQUIRE(all_alive(pool));
    const auto now = pool.stats();
    for (std::size_t i = 0; i != 3; ++i) {
      CHECK(now.workers[i].index == i);
      CHECK(now.workers[i].generation == (i == 1 ? generation : 0));
    }
  }
  std::vector<future<std::pair<std::size_t, std::size_t>>> seen;
  for (int i = 0; i != 60; ++i) {
    seen.push_back(pool.apply_async([] { return std::pair(own_index(), own_generation()); }));
  }
  for (auto& each : seen) {
    const auto [index, generation] = each.get();
    CHECK(index < 3);
    CHECK(generation == (index == 1 ? 3U : 0U));
  }
}

TEST_CASE("map throws the failure of the lowest index, whichever came first", "[process_pool][crash]") {
  resources_unchanged guard;
  const gate seventh_died;
  const gate second_runs;
  process_pool pool{4};
  auto results = pool.map_async(
      [after = seventh_died.in_task(), runs = second_runs.in_task()](int x) {
        if (x == 2) {
          runs.open();
          after.pass();
          ::raise(SIGABRT);
        }
        if (x == 3) {
          runs.pass();  // the second must have started, or it would not be run any more
          ::raise(SIGSEGV);
        }
        return x;
      },
      std::views::iota(0, 10), 1);
  CHECK(eventually([&] { return pool.stats().workers_crashed == 1; }));
  CHECK(results.wait_for(20ms) == std::future_status::timeout);  // one of its elements is still running
  seventh_died.open();
  const auto crash = thrown_by<worker_crashed>([&] { results.get(); });
  CHECK(crash.signal() == SIGABRT);
  CHECK_THAT(crash.what(), Catch::Contains("map_async: task 2 of 10"));
}

TEST_CASE("elements behind a death that have not started are not run", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words runs(100);
  process_pool pool{1};
  const std::size_t chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{10}, std::size_t{100});
  CAPTURE(chunksize);
  const auto crash = thrown_by<worker_crashed>([&] {
    pool.map(
        [counts = runs.in_task()](int x) {
          ++counts[x];
          return x == 13 ? ::raise(SIGSEGV) : x;
        },
        std::views::iota(0, 100), chunksize);
  });
  CHECK_THAT(crash.what(), Catch::Contains("task 13 of 100"));
  for (std::size_t i = 0; i != 100; ++i) {
    CAPTURE(i);
    CHECK(runs[i] == (i <= 13 ? 1 : 0));
  }
  CHECK(pool.apply(twice, 3) == 6);
}

TEST_CASE("try_map runs what lies behind a death", "[process_pool][crash]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{100});
  const int workers = GENERATE(1, 3);
  CAPTURE(chunksize, workers);
  const shared_words runs(100);
  process_pool pool{workers};
  const auto outcomes = pool.try_map(
      [counts = runs.in_task()](int x) {
        ++counts[x];
        return x % 20 == 19 ? ::raise(SIGSEGV) : x;
      },
      std::views::iota(0, 100), chunksize);
  REQUIRE(outcomes.size() == 100);
  for (std::size_t i = 0; i != 100; ++i) {
    CAPTURE(i);
    CHECK(runs[i] == 1);
    CHECK(outcomes[i].has_value() == (i % 20 != 19));
  }
}

TEST_CASE("hundreds of deaths among many tasks cost only themselves", "[process_pool][crash]") {
  resources_unchanged guard;
  constexpr int tasks = 3000;
  const shared_words runs(tasks);
  const auto work = [counts = runs.in_task()](int x) {
    ++counts[x];
    switch (x % 48) {
      case 11:
        return ::raise(SIGKILL);
      case 23:
        ::_exit(0);
      case 35:
        return ::raise(SIGSEGV);
      case 47:
        std::abort();
      default:
        return 2 * x;
    }
  };
  process_pool pool{4};
  std::vector<future<int>> singles;
  std::size_t crashes = 0;
  SECTION("as calls") {
    for (int i = 0; i != tasks; ++i) singles.push_back(pool.apply_async(work, i));
    for (int i = 0; i != tasks; ++i) {
      CAPTURE(i);
      auto& each = singles[static_cast<std::size_t>(i)];
      if (i % 12 != 11) {
        CHECK(each.get() == 2 * i);
        continue;
      }
      CHECK_THROWS_AS(each.get(), worker_crashed);
      ++crashes;
    }
  }
  SECTION("in chunks") {
    const auto outcomes = pool.try_map(work, std::views::iota(0, tasks), 100);
    for (int i = 0; i != tasks; ++i) {
      CAPTURE(i);
      const auto& each = outcomes[static_cast<std::size_t>(i)];
      if (i % 12 != 11) {
        REQUIRE(each.has_value());
        CHECK(*each == 2 * i);
        continue;
      }
      REQUIRE(each.has_error());
      CHECK_NOTHROW(held_by<worker_crashed>(each.error()));
      ++crashes;
    }
  }
  for (const auto& count : runs) CHECK(count == 1);
  const auto now = pool.stats();
  CHECK(now.workers_crashed == crashes);
  CHECK(now.tasks_submitted == tasks);
  CHECK(now.tasks_failed == crashes);
  CHECK(now.tasks_completed == tasks - crashes);
}

TEST_CASE("a worker that is killed while it is idle costs no task", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words runs(1);
  process_pool pool{2};
  int submitted = 0;
  std::size_t kills = 0;
  for (std::size_t round = 0; round != 30; ++round) {
    REQUIRE(eventually([&] { return pool.stats().workers_crashed == kills; }));
    REQUIRE(all_alive(pool));
    const pool_stats now = pool.stats();
    for (const worker_stats& each : now.workers) {
      REQUIRE(each.pid > 0);
      REQUIRE(await_sleep(each.pid));
      if (each.index != round % 2 && round % 3 != 0) continue;
      REQUIRE(::kill(each.pid, SIGKILL) == 0);
      ++kills;
    }
    std::vector<future<int>> results;
    for (int i = 0; i != 20; ++i, ++submitted) {
      results.push_back(pool.apply_async(
          [counts = runs.in_task()](int x) {
            ++counts[0];
            return x;
          },
          i));
    }
    for (int i = 0; i != 20; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i);
  }
  CHECK(runs[0] == submitted);
  CHECK(pool.stats().tasks_failed == 0);
  CHECK(kills == 40);
  CHECK(eventually([&] { return pool.stats().workers_crashed == kills; }));
}

TEST_CASE("workers killed from outside at any moment cost at most the tasks that they ran", "[process_pool][crash]") {
  resources_unchanged guard;
  constexpr int tasks = 20'000;
  const shared_words runs(tasks);
  process_pool pool{3};
  auto results = pool.with({.buffersize = 2000})
                     .imap(
                         [counts = runs.in_task()](int x) {
                           ++counts[x];
                           return 2 * x;
                         },
                         std::views::iota(0, tasks), 50);
  int seen = 0;
  std::size_t failed = 0;
  std::size_t kills = 0;
  for (auto it = results.begin(); it != results.end(); ++it, ++seen) {
    if (seen % 400 == 0) {
      worker_stats victim;
      REQUIRE(eventually([&] {
        victim = pool.stats().workers[kills % 3];
        return victim.alive;
      }));
      REQUIRE(victim.pid > 0);
      if (::kill(victim.pid, SIGKILL) == 0) ++kills;
    }
    int result = -1;
    try {
      result = *it;
    } catch (const worker_crashed&) {
      ++failed;
      continue;
    }
    CHECK(result == 2 * seen);
  }
  CHECK(seen == tasks);
  CHECK(kills >= 10);
  CHECK(failed <= kills);
  CHECK(std::ranges::all_of(runs, [](const auto& count) { return count <= 1; }));
  CHECK(std::ranges::count_if(runs, [](const auto& count) { return count == 0; }) <=
        static_cast<std::ptrdiff_t>(failed));
  CHECK(pool.stats().workers_crashed <= kills);
}

TEST_CASE("a child that comes back from a task is not a second worker", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words runs(200);
  const auto work = [counts = runs.in_task()](int x) {
    ++counts[x];
    if (x % 5 != 0) return x;
    return ::fork() == 0 ? -1 : x;  // the child returns as well
  };
  process_pool pool{2};
  SECTION("from calls") {
    std::vector<future<int>> results;
    for (int i = 0; i != 200; ++i) results.push_back(pool.apply_async(work, i));
    for (int i = 0; i != 200; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i);
  }
  SECTION("from a chunk") {
    std::vector<int> expected(200);
    std::iota(expected.begin(), expected.end(), 0);
    CHECK(pool.map(work, std::views::iota(0, 200), 100) == expected);
  }
  for (const auto& count : runs) CHECK(count == 1);
  CHECK(pool.stats().tasks_completed == 200);
  CHECK(pool.stats().workers_crashed == 0);
}

TEST_CASE("a child that comes back late, after the worker's end, is not a worker", "[process_pool][crash]") {
  resources_unchanged guard;
  const gate apart;
  const gate replaced;
  const shared_words returned(1);
  process_pool pool{1};
  auto doomed = pool.apply_async([own_group = apart.in_task(), late = replaced.in_task(), counts = returned.in_task()] {
    if (::fork() == 0) {
      ::setpgid(0, 0);  // or it would be killed with the worker
      own_group.open();
      late.pass();
      ++counts[0];
      return -1;
    }
    own_group.pass();
    ::raise(SIGKILL);
    return 0;
  });
  CHECK_THROWS_AS(doomed.get(), worker_crashed);
  CHECK(pool.apply(twice, 1) == 2);
  replaced.open();
  for (int i = 0; i != 100; ++i) CHECK(pool.apply(twice, i) == 2 * i);
  CHECK(eventually([&] { return returned[0] == 1; }));
  for (int i = 0; i != 100; ++i) CHECK(pool.apply(twice, i) == 2 * i);
}

TEST_CASE("a death in a thread of the task is the worker's", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  auto doomed = pool.apply_async([] {
    std::thread([] { ::raise(SIGSEGV); }).join();
    return 1;
  });
  CHECK(thrown_by<worker_crashed>([&] { doomed.get(); }).signal() == SIGSEGV);
  auto leaving = pool.apply_async([] {
    std::thread([] { std::exit(5); }).join();
    return 1;
  });
  CHECK(thrown_by<worker_crashed>([&] { leaving.get(); }).exit_status() == 5);
}

TEST_CASE("a worker that closes its connection to the pool fails its task", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  auto doomed = pool.apply_async([] {
    for (int fd = 3; fd != 1000; ++fd) ::close(fd);
    for (;;) ::pause();
  });
  CHECK_THROWS_AS(doomed.get(), worker_crashed);
  CHECK(pool.apply(twice, 1) == 2);
}

TEST_CASE("a death during transform_reduce fails the call alone", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{2};
  const auto sum = [&](int deadly) {
    return pool.transform_reduce(std::views::iota(0, 1000), 0, std::plus<>(), [deadly](int x) {
      if (x == deadly) ::raise(SIGSEGV);
      return x;
    });
  };
  CHECK_THROWS_AS(sum(500), worker_crashed);
  CHECK(sum(-1) == 499'500);
}

TEST_CASE("callbacks hear of a death", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  auto told = pool.apply_async(ways_to_die::raise_segv)
                  .then([](int) { return std::string("value"); },
                        [](std::exception_ptr error) {
                          return "signal " + std::to_string(held_by<worker_crashed>(error).signal());
                        });
  CHECK(told.get() == "signal 11");
}

TEST_CASE("a stopped worker goes on when it is continued", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t worker = pool.apply(own_pid);
  auto result = pool.apply_async([] {
    ::raise(SIGSTOP);
    return 7;
  });
  CHECK(eventually([&] { return status_of(worker)->state == 'T'; }));
  CHECK(result.wait_for(20ms) == std::future_status::timeout);
  CHECK(::kill(worker, SIGCONT) == 0);
  CHECK(result.get() == 7);
}
