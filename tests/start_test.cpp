// SPDX-License-Identifier: BSL-1.0
// How pools come into being, and what happens when they or their replacements cannot.
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/sanitizers.hpp"
#include "support/shared_words.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int twice(int x) { return 2 * x; }

/// Set by initializers, in the worker's copy of the program.
int prepared = 0;
int get_prepared() { return prepared; }

/// What a pool that is made here says when it cannot be made; "" if it can, and works.
std::string attempt(int workers) {
  try {
    process_pool pool{workers};
    return pool.apply(twice, 4) == 8 ? "" : "wrong result";
  } catch (const worker_start_error& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a pool has as many workers as were asked for", "[process_pool]") {
  resources_unchanged guard;
  for (const int workers : {1, 2, 7}) {
    process_pool pool{workers};
    CHECK(pool.processes() == static_cast<std::size_t>(workers));
    CHECK(pool.stats().workers.size() == static_cast<std::size_t>(workers));
    CHECK(pool.stats().workers_started == static_cast<std::size_t>(workers));
  }
  process_pool from_size{std::size_t{3}};
  CHECK(from_size.processes() == 3);
  process_pool from_short{static_cast<std::int8_t>(2)};
  CHECK(from_short.processes() == 2);
  process_pool from_options{pool_options{.processes = 2}};
  CHECK(from_options.processes() == 2);
}

TEST_CASE("by default a pool has a worker for each CPU that the process may use", "[process_pool]") {
  resources_unchanged guard;
  {
    process_pool pool;
    CHECK(pool.processes() >= 1);
    CHECK(pool.apply(twice, 1) == 2);
  }
  CHECK(in_child([] {
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
          if (::sched_setaffinity(0, sizeof(one), &one) != 0) return std::string("sched_setaffinity failed");
          process_pool pool;
          return pool.processes() == 1 ? std::string() : std::to_string(pool.processes());
        }) == "");
}

TEST_CASE("less than one worker, or more than an int holds, is an invalid argument", "[process_pool]") {
  resources_unchanged guard;
  CHECK_THROWS_AS(process_pool<>(0), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(-1), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(std::numeric_limits<std::int64_t>::min()), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(std::numeric_limits<std::int64_t>::max()), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(std::uint64_t{1} << 32), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>((std::uint64_t{1} << 32) + 1), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(std::numeric_limits<std::uint32_t>::max()), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(pool_options{.processes = 0}), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(pool_options{.processes = -5}), std::invalid_argument);
  CHECK_THROWS_AS(process_pool<>(0, [] {}), std::invalid_argument);
}

TEST_CASE("the initializer has run in every worker when the pool is there", "[process_pool]") {
  resources_unchanged guard;
  const shared_words starts(5);
  process_pool pool{pool_options{.processes = 5, .initializer = [counts = starts.in_task()] {
                                   ++counts[this_worker::index()];
                                   prepared = static_cast<int>(this_worker::index()) + 1;
                                 }}};
  for (const auto& count : starts) CHECK(count == 1);
  CHECK(prepared == 0);
  for (int i = 0; i != 20; ++i)
    CHECK(pool.apply([] { return prepared == static_cast<int>(this_worker::index()) + 1; }));
}

TEST_CASE("an initializer gets its arguments as they are, also in a replacement", "[process_pool]") {
  resources_unchanged guard;
  // Neither has a codec: they are part of the snapshot.
  auto owner = std::make_unique<int>(40);
  int one = 1;
  process_pool pool(
      2, [](std::unique_ptr<int> a, const int* b, int c) { prepared = *a + *b + c; }, std::move(owner), &one, 1);
  one = 1000;
  for (int i = 0; i != 10; ++i) CHECK(pool.apply(get_prepared) == 42);
  for (int i = 0; i != 4; ++i) {
    CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
    CHECK(pool.apply(get_prepared) == 42);
  }
  CHECK(eventually([&] { return pool.stats().workers_started == 6; }));
  pool.broadcast([] {
    if (prepared != 42) throw std::runtime_error("not prepared");
  });
}

TEST_CASE("an initializer that throws makes the constructor throw its text", "[process_pool]") {
  resources_unchanged guard;
  const auto failing = [](auto initializer) {
    return text_of<worker_start_error>([&] { process_pool<> pool(3, initializer); });
  };
  CHECK_THAT(failing([] { throw std::runtime_error("no database"); }), Catch::Contains("no database"));
  CHECK_THAT(failing([] { throw std::string("no database"); }), Catch::Contains("procpool: "));
  CHECK_THAT(failing([] {
               if (this_worker::index() == 2) throw std::runtime_error("just the last");
             }),
             Catch::Contains("just the last") && Catch::Contains("worker 2"));
  CHECK_THAT(failing([] { throw std::runtime_error(std::string(100'000, 'x')); }), Catch::Contains("xxxxxxxx"));
  CHECK_THAT(failing([] { throw std::runtime_error(""); }), Catch::Contains("procpool: "));
}

TEST_CASE("a worker that dies while it initializes makes the constructor throw", "[process_pool][crash]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      const std::string text = text_of<worker_start_error>([&] { process_pool<> pool(2, how.die); });
      CHECK_THAT(text, Catch::Contains("procpool: "));
      if (how.signal != 0) CHECK_THAT(text, Catch::Contains("signal " + std::to_string(how.signal)));
      if (how.signal == 0) CHECK_THAT(text, Catch::Contains("status " + std::to_string(how.exit_status)));
    }
  }
}

TEST_CASE("a worker that dies when it is ready, but others are not, makes the constructor throw",
          "[process_pool][crash]") {
  // In a child: a constructor that hangs is told from one that takes long.
  CHECK(in_child([]() -> std::string {
          const shared_words pids(1);
          const auto kill_the_first = [pid = pids.in_task()] {
            if (this_worker::index() == 0) {
              *pid = ::getpid();
              return;
            }
            // It has something to wait for only in its loop, when it is ready.
            if (!eventually([&] { return *pid != 0; }) || !await_sleep(*pid)) ::_exit(EXIT_FAILURE);
            ::kill(*pid, SIGKILL);
            if (!eventually([&] { return ::kill(*pid, 0) != 0; })) ::_exit(EXIT_FAILURE);
          };
          try {
            process_pool pool{pool_options{.processes = 2, .initializer = kill_the_first}};
            return "no exception";
          } catch (const worker_start_error& error) {
            const std::string text = error.what();
            return text.find("SIGKILL") != std::string::npos ? "" : text;
          }
        }) == "");
}

TEST_CASE("workers that wait in their initializer do not outlive a constructor that fails", "[process_pool]") {
  resources_unchanged guard;
  CHECK_THROWS_AS(process_pool<>(4,
                                 [] {
                                   if (this_worker::index() == 3) throw std::runtime_error("no");
                                   for (;;) ::pause();
                                 }),
                  worker_start_error);
}

TEST_CASE("a fork that fails makes the constructor throw, and leaves nothing behind", "[process_pool]") {
  if (::geteuid() != 0) {
    WARN("not run: it takes root to become a user who may not fork");
    return;
  }
  resources_unchanged guard;
  // This child, its collector, the zygote and four workers: a limit of 7 is enough (setrlimit(2), RLIMIT_NPROC).
  for (rlim_t limit = 1; limit != 12; ++limit) {
    CAPTURE(limit);
    const std::string said = in_child([limit] {
      const resources before = resources::now();
      const rlimit few{limit, limit};
      if (::setrlimit(RLIMIT_NPROC, &few) != 0) return std::string("setrlimit failed");
      if (::setuid(static_cast<uid_t>(1'000'000 + ::getpid())) != 0) return std::string("setuid failed");
      const std::string text = attempt(4);
      const resources after = resources::once_as(before);
      if (after.held != before.held) return "left behind: " + resources::added(before, after);
      return text.empty() ? "works" : text;
    });
    if (limit >= 8) {
      CHECK(said == "works");
    } else if (limit <= 5) {
      CHECK_THAT(said, Catch::StartsWith("procpool: ") && Catch::Contains("Resource temporarily unavailable"));
    } else {
      CHECK_THAT(said, Catch::StartsWith("procpool: ") || Catch::Equals("works"));
    }
  }
}

TEST_CASE("no descriptors left makes the constructor throw, and leaves nothing behind", "[process_pool]") {
#if defined(PROCPOOL_TEST_ASAN)
  WARN("not run: the sanitizers' checks of virtual calls need descriptors themselves");
#else
  resources_unchanged guard;
  std::string last;
  int failures = 0;
  for (rlim_t room = 0; room != 40; ++room) {
    CAPTURE(room);
    const std::string said = in_child([room] {
      const resources before = resources::now();
      const rlim_t used = static_cast<rlim_t>(::dup(0));  // the lowest that is free
      ::close(static_cast<int>(used));
      rlimit before_limit{};
      ::getrlimit(RLIMIT_NOFILE, &before_limit);
      const rlimit few{used + room, before_limit.rlim_max};
      if (::setrlimit(RLIMIT_NOFILE, &few) != 0) return std::string("setrlimit failed");
      const std::string text = attempt(3);
      ::setrlimit(RLIMIT_NOFILE, &before_limit);
      const resources after = resources::once_as(before);
      if (after.held != before.held) return "left behind: " + resources::added(before, after);
      return text.empty() ? "works" : text;
    });
    if (said != "works") {
      CHECK_THAT(said, Catch::StartsWith("procpool: ") && Catch::Contains("Too many open files"));
      ++failures;
    }
    last = said;
  }
  CHECK(failures > 0);
  CHECK(last == "works");
#endif
}

TEST_CASE("little address space makes a pool with less room, not a failure", "[process_pool]") {
#if defined(PROCPOOL_TEST_ASAN)
  WARN("not run: AddressSanitizer needs more address space than this test leaves");
#else
  resources_unchanged guard;
  for (const rlim_t gib : {rlim_t{1}, rlim_t{2}, rlim_t{20}, rlim_t{500}}) {
    CAPTURE(gib);
    CHECK(in_child([gib] {
            const rlimit little{gib << 30, gib << 30};
            if (::setrlimit(RLIMIT_AS, &little) != 0) return std::string("setrlimit failed");
            return attempt(2);
          }) == "");
  }
#endif
}

TEST_CASE("a pool whose replacements fail is broken when no worker is left", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words starts(1);
  process_pool pool{pool_options{.processes = 2, .initializer = [starts = starts.in_task()] {
                                   ++starts[0];
                                   if (this_worker::generation() > 0)
                                     throw std::runtime_error("the licence has expired");
                                 }}};
  const gate both_run;
  std::vector<future<int>> pending;
  const auto doomed = pool.stats();
  // Both are busy, so that the others wait; then both are killed.
  auto first = pool.apply_async([] {
    for (;;) ::pause();
    return 0;
  });
  auto second = pool.apply_async([] {
    for (;;) ::pause();
    return 0;
  });
  for (int i = 0; i != 50; ++i) pending.push_back(pool.apply_async(twice, i));
  auto mapped = pool.map_async(twice, std::views::iota(0, 100));
  REQUIRE(eventually([&] { return first.running() && second.running(); }));
  for (const worker_stats& each : pool.stats().workers) {
    REQUIRE(each.pid > 0);
    ::kill(each.pid, SIGKILL);
  }
  CHECK_THROWS_AS(first.get(), worker_crashed);
  CHECK_THROWS_AS(second.get(), worker_crashed);
  for (auto& each : pending) {
    CHECK_THAT(text_of<pool_broken>([&] { each.get(); }), Catch::Contains("the licence has expired"));
  }
  CHECK_THAT(text_of<pool_broken>([&] { mapped.get(); }), Catch::Contains("the licence has expired"));
  CHECK_THAT(text_of<pool_broken>([&] { pool.apply_async(twice, 1); }), Catch::Contains("the licence has expired"));
  CHECK_THROWS_AS(pool.map(twice, std::views::iota(0, 3)), pool_broken);
  CHECK_THROWS_AS(pool.broadcast(twice, 1), pool_broken);
  CHECK(starts[0] == 2 + 2 * 5);
  const auto now = pool.stats();
  CHECK(now.tasks_submitted == now.tasks_failed);
  for (const worker_stats& each : now.workers) {
    CHECK_FALSE(each.alive);
    CHECK(each.pid == 0);
  }
}

TEST_CASE("a pool goes on with the workers that can be started", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words starts(3);
  process_pool pool{pool_options{.processes = 3, .initializer = [starts = starts.in_task()] {
                                   ++starts[this_worker::index()];
                                   if (this_worker::generation() > 0 && this_worker::index() == 1) std::abort();
                                 }}};
  CHECK_THROWS_AS(pool.broadcast([] {
    if (this_worker::index() == 1) ::raise(SIGKILL);
  }),
                  worker_crashed);
  for (int i = 0; i != 100; ++i) CHECK(pool.apply(twice, i) == 2 * i);
  // Nobody will ever run it on the worker that is missing.
  const std::string text = text_of<pool_broken>([&] { pool.broadcast([] {}); });
  CHECK_THAT(text, Catch::Contains("signal 6"));
  CHECK(starts[0] == 1);
  CHECK(starts[1] == 1 + 5);
  CHECK(starts[2] == 1);
  CHECK_FALSE(pool.stats().workers[1].alive);
  CHECK(pool.apply(twice, 4) == 8);
  CHECK(pool.map(twice, std::views::iota(0, 3)) == std::vector<int>{0, 2, 4});
}

namespace {

/// Kills the one worker of a pool whose zygote may not fork; lifts that limit again in time for the later attempts, or
/// never. What becomes of a task that waits meanwhile.
std::string with_failing_forks(bool lift) {
  process_pool pool{1};
  const pid_t zygote = pool.apply([] { return ::getppid(); });
  rlimit before{};
  if (::prlimit(zygote, RLIMIT_NPROC, nullptr, &before) != 0) return "prlimit failed";
  const rlimit none{1, before.rlim_max};
  ::prlimit(zygote, RLIMIT_NPROC, &none, nullptr);
  auto doomed = pool.apply_async(ways_to_die::raise_kill);
  auto next = pool.apply_async(twice, 4);
  try {
    doomed.get();
    return "no crash";
  } catch (const worker_crashed&) {
  }
  if (lift) {
    if (next.wait_for(20ms) == std::future_status::ready && next.successful()) return "there is no limit";
    ::prlimit(zygote, RLIMIT_NPROC, &before, nullptr);
  }
  try {
    return next.get() == 8 && pool.apply(twice, 5) == 10 ? "" : "wrong result";
  } catch (const pool_broken& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a replacement that cannot be forked is tried again, and in the end the pool is broken", "[process_pool]") {
  if (::geteuid() != 0) {
    WARN("not run: it takes root to become a user who may not fork");
    return;
  }
  resources_unchanged guard;
  const auto as_someone = [](auto body) {
    return in_child([&] {
      if (::setuid(static_cast<uid_t>(1'000'000 + ::getpid())) != 0) return std::string("setuid failed");
      return body();
    });
  };
  CHECK_THAT(as_someone([] { return with_failing_forks(false); }), Catch::Contains("Resource temporarily unavailable"));
  CHECK(as_someone([] {
          // The attempts are over after 150 ms: on a busy machine the limit may be lifted too late.
          std::string said;
          for (int round = 0; round != 10; ++round) {
            said = with_failing_forks(true);
            if (said.find("Resource temporarily unavailable") == said.npos) break;
          }
          return said;
        }) == "");
}

TEST_CASE("a worker that dies again and again when it is ready is not started all the time", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto before = std::chrono::steady_clock::now();
  constexpr int deaths = 6;
  for (std::size_t generation = 0; generation <= deaths; ++generation) {
    worker_stats worker;
    REQUIRE(eventually([&] {
      worker = pool.stats().workers.at(0);
      return worker.alive && worker.generation == generation;
    }));
    if (generation != deaths) REQUIRE(::kill(worker.pid, SIGKILL) == 0);
  }
  CHECK(std::chrono::steady_clock::now() - before >= (deaths - 1) * detail::worker_record::shortest_life);
  CHECK(pool.stats().workers_crashed == deaths);
  CHECK(pool.apply(twice, 4) == 8);
}

TEST_CASE("a pool whose workers never live to run anything is broken in the end, and says so",
          "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words made(1);
  // Each kills itself as soon as it sleeps. On a busy machine some live for longer, which do not count: there may be more
  // deaths than it takes.
  process_pool pool{pool_options{.processes = 1, .initializer = [made = made.in_task()] {
                                   std::thread([made, worker = ::getpid()] {
                                     if (eventually([made] { return *made != 0; }) && await_sleep(worker))
                                       ::raise(SIGKILL);
                                   }).detach();
                                 }}};
  made[0] = 1;
  std::string said;
  REQUIRE(eventually(
      [&] {
        try {
          pool.map(twice, std::vector<int>());
        } catch (const pool_broken& broken) {
          said = broken.what();
        }
        return !said.empty();
      },
      std::chrono::seconds(40)));
  CHECK(pool.stats().workers_crashed >= detail::worker_record::most_stillborn);
  CHECK_THAT(said, Catch::Contains("before it had run anything"));
}

TEST_CASE("a pool whose zygote is killed goes on with its spare, and loses what was running", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{2};
  std::vector<future<int>> hung;
  for (int i = 0; i != 2; ++i) {
    hung.push_back(pool.apply_async([] {
      for (;;) ::pause();
      return 0;
    }));
    REQUIRE(eventually([&] { return hung.back().running(); }));
  }
  std::vector<future<int>> waiting;
  for (int i = 0; i != 50; ++i) waiting.push_back(pool.apply_async(twice, i));
  const auto status = status_of(pool.stats().workers.at(0).pid);
  REQUIRE(status);
  REQUIRE(::kill(status->parent, SIGKILL) == 0);
  for (auto& each : hung) {
    CHECK_THAT(thrown_by<worker_crashed>([&] { each.get(); }).what(), Catch::Contains("the process that started it"));
  }
  for (int i = 0; i != 50; ++i) CHECK(waiting[static_cast<std::size_t>(i)].get() == 2 * i);
  CHECK(pool.map(twice, std::views::iota(0, 100)).size() == 100);
  CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);  // workers are replaced, too
  CHECK(pool.apply(twice, 4) == 8);
  CHECK(pool.stats().workers_crashed == 3);
  CHECK(pool.stats().tasks_failed == 3);
}

TEST_CASE("a pool whose zygotes are all killed is broken, and says so", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{2};
  const pid_t first = pool.apply([] { return ::getppid(); });
  REQUIRE(::kill(first, SIGKILL) == 0);
  pid_t second = first;
  REQUIRE(eventually([&] {
    try {
      second = pool.apply([] { return ::getppid(); });
    } catch (const worker_crashed&) {
    }
    return second != first;
  }));
  auto hung = pool.apply_async([] {
    for (;;) ::pause();
    return 0;
  });
  REQUIRE(eventually([&] { return hung.running(); }));
  const pid_t worker = pool.apply([] { return ::getpid(); });
  const auto status = status_of(worker);
  REQUIRE(status);
  REQUIRE(::kill(status->parent, SIGKILL) == 0);
  CHECK_THROWS_AS(hung.get(), worker_crashed);
  CHECK(eventually([&] {
    try {
      pool.apply(twice, 1);
    } catch (const pool_broken&) {
      return true;
    } catch (const worker_crashed&) {
    }
    return false;
  }));
}

TEST_CASE("a pool whose zygote is killed while its workers leave ends all the same", "[process_pool][crash]") {
  resources_unchanged guard;
  const auto begin = std::chrono::steady_clock::now();
  {
    process_pool pool{pool_options{.processes = 2, .finalizer = [] {
                                     ::kill(::getppid(), SIGKILL);
                                     for (;;) ::pause();
                                   }}};
    CHECK(pool.apply(twice, 4) == 8);
  }
  CHECK(std::chrono::steady_clock::now() - begin < 8s);  // a finalizer may take 10 s
}

TEST_CASE("the spare zygote goes while the workers leave", "[process_pool]") {
  resources_unchanged guard;
  const std::string name = "t" + std::to_string(::getpid() % 100'000);
  const auto spare_is_there = [name] {
    return std::ranges::any_of(all_processes(),
                               [&](const auto& each) { return each.name == name + "/spare" && each.state != 'Z'; });
  };
  const shared_words gone(1);
  {
    process_pool pool{pool_options{
        .processes = 1,
        .finalizer = [gone = gone.in_task(),
                      spare_is_there] { *gone = eventually([&] { return !spare_is_there(); }, 5s) ? 1 : 0; },
        .name = name}};
    CHECK(spare_is_there());
  }
  CHECK(gone[0] == 1);
}

TEST_CASE("a pool whose zygote is killed does not wait for what its workers have started", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  const pid_t child = pool.apply([] {
    const pid_t forked = ::fork();
    while (forked == 0) ::pause();
    return forked;
  });
  auto hung = pool.apply_async([] {
    for (;;) ::pause();
    return 0;
  });
  REQUIRE(eventually([&] { return hung.running(); }));
  const auto status = status_of(pool.stats().workers.at(0).pid);
  REQUIRE(status);
  REQUIRE(::kill(status->parent, SIGKILL) == 0);
  CHECK(hung.wait_for(20s) == std::future_status::ready);
  // Linux 6.9 and later can kill a process group without its number (pidfd_send_signal(2)).
  constexpr unsigned process_group = 1u << 2;
  const int self = static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0));
  if (self >= 0 && ::syscall(SYS_pidfd_send_signal, self, 0, nullptr, process_group) == 0) CHECK(await_end(child));
  ::close(self);
  if (is_alive(child)) ::kill(child, SIGKILL);
  CHECK_THROWS_AS(hung.get(), worker_crashed);
}
