// SPDX-License-Identifier: BSL-1.0
// Pools in programs that have habits of their own: signal handlers, children, threads, forks, other pools.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/single_threaded.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <clocale>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
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

#include "support/child_process.hpp"
#include "support/deaths.hpp"
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

/// Runs tasks, a crash and the replacement; "" if all of it goes well.
std::string exercise(process_pool<>& pool) {
  for (int i = 0; i != 10; ++i) {
    if (pool.apply(twice, i) != 2 * i) return "wrong result";
  }
  try {
    pool.apply(ways_to_die::raise_segv);
    return "no crash";
  } catch (const worker_crashed& crash) {
    if (crash.signal() != SIGSEGV) return crash.what();
  }
  const auto mapped = pool.map(twice, std::views::iota(0, 100));
  for (int i = 0; i != 100; ++i) {
    if (mapped[static_cast<std::size_t>(i)] != 2 * i) return "wrong result of map";
  }
  return "";
}

std::string exercise_some_pools() {
  for (int round = 0; round != 10; ++round) {
    process_pool pool{2};
    std::string said = exercise(pool);
    if (!said.empty()) return said;
  }
  return "";
}

template <class Call>
bool is_logic_error(Call call) {
  try {
    call();
  } catch (const std::logic_error&) {
    return true;
  } catch (...) {
  }
  return false;
}

}  // namespace

TEST_CASE("a program whose SIGCHLD handler reaps everything can have pools", "[process_pool][host]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          struct sigaction action{};
          action.sa_handler = [](int) {
            const int kept = errno;
            while (::waitpid(-1, nullptr, WNOHANG) > 0) {
            }
            errno = kept;
          };
          ::sigaction(SIGCHLD, &action, nullptr);
          return exercise_some_pools();
        }) == "");
}

TEST_CASE("a program that ignores SIGCHLD can have pools", "[process_pool][host]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          ::signal(SIGCHLD, SIG_IGN);
          return exercise_some_pools();
        }) == "");
  CHECK(in_child([] {
          struct sigaction action{};
          action.sa_handler = SIG_DFL;
          action.sa_flags = SA_NOCLDWAIT;
          ::sigaction(SIGCHLD, &action, nullptr);
          return exercise_some_pools();
        }) == "");
}

TEST_CASE("a pool takes no child of the program from it", "[process_pool][host]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          constexpr int pools = 20;
          std::atomic<int> strangers{0};
          std::atomic<int> reaped{0};
          std::string said;
          // One long-lived child, so that wait() blocks and does not fail; a short one now and then.
          const pid_t lasting = ::fork();
          if (lasting == 0) {
            for (;;) ::pause();
          }
          std::thread waiting([&] {
            for (;;) {
              int status = 0;
              const pid_t pid = ::wait(&status);
              if (pid == lasting) return;
              if (pid == -1) continue;
              ++(WIFEXITED(status) && WEXITSTATUS(status) == 42 ? reaped : strangers);
            }
          });
          for (int round = 0; round != pools && said.empty(); ++round) {
            process_pool pool{2};
            if (round % 4 == 0 && ::fork() == 0) ::_exit(42);
            said = exercise(pool);
          }
          const bool all = eventually([&] { return reaped == 5; });
          ::kill(lasting, SIGKILL);
          waiting.join();
          if (!all) return std::string("children of the program were lost");
          // In a program with threads, a pool has one child that ends at once while it is made; no worker is ever one.
          if (strangers > pools) return std::to_string(strangers) + " strangers";
          return said;
        }) == "");
}

TEST_CASE("a program without threads hears nothing of a pool's processes", "[process_pool][host]") {
  resources_unchanged guard;
  for (int round = 0; round != 5; ++round) {
    CHECK(in_child([] {
            static volatile sig_atomic_t heard = 0;
            heard = 0;
            ::signal(SIGCHLD, [](int) { heard = heard + 1; });
            const bool threads = !__libc_single_threaded;  // it may have had some in other tests
            std::string said;
            {
              process_pool pool{2};
              if (!threads && heard != 0) said += "SIGCHLD while the pool was made; ";
              const sig_atomic_t before = heard;
              if (::waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD) said += "a child; ";
              said += exercise(pool);
              if (heard != before) said += "SIGCHLD of a worker; ";
            }
            if (heard > (threads ? 1 : 0)) said += "SIGCHLD; ";
            if (::wait(nullptr) != -1 || errno != ECHILD) said += "a child is left";
            return said;
          }) == "");
  }
}

TEST_CASE("a program that is a subreaper keeps no zombie of a pool", "[process_pool][host]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          ::prctl(PR_SET_CHILD_SUBREAPER, 1);
          {
            process_pool pool{2};
            const std::string said = exercise(pool);
            if (!said.empty()) return said;
          }
          return children_of(::getpid()).empty() ? std::string() : std::string("a child is left");
        }) == "");
}

TEST_CASE("signals that interrupt system calls all the time change nothing", "[process_pool][host]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          struct sigaction action{};
          action.sa_handler = [](int) {};  // no SA_RESTART
          ::sigaction(SIGALRM, &action, nullptr);
          const itimerval often{{0, 500}, {0, 500}};
          ::setitimer(ITIMER_REAL, &often, nullptr);
          for (int round = 0; round != 5; ++round) {
            process_pool pool{2};
            const std::string said = exercise(pool);
            if (!said.empty()) return said;
            auto array = pool.make_shared_array<int>(1000);
            for (int i = 0; i != 50; ++i) {
              pool.apply([](shared_array<int> to, int value) { to[0] = value; }, array, i);
              if (array[0] != i) return std::string("wrong array");
            }
          }
          return std::string();
        }) == "");
}

TEST_CASE("signals for the program go to its own threads", "[process_pool][host]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          static std::atomic<pid_t> handled_by{0};
          handled_by = 0;
          ::signal(SIGUSR1, [](int) { handled_by = ::gettid(); });
          process_pool pool{2};
          pool.apply_async(twice, 1).then(twice).get();  // the callback thread is there as well
          for (int round = 0; round != 50; ++round) {
            handled_by = 0;
            // With the signal blocked here, only a thread of the pool could take it.
            sigset_t one;
            ::sigemptyset(&one);
            ::sigaddset(&one, SIGUSR1);
            ::pthread_sigmask(SIG_BLOCK, &one, nullptr);
            ::kill(::getpid(), SIGUSR1);
            if (pool.apply(twice, round) != 2 * round) return std::string("wrong result");
            if (handled_by != 0) return std::string("a thread of the pool ran the program's handler");
            ::pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
            if (!eventually([&] { return handled_by == ::gettid(); })) return std::string("the signal is lost");
          }
          return std::string();
        }) == "");
}

TEST_CASE("a pool outlives the thread that made it", "[process_pool][host]") {
  resources_unchanged guard;
  std::optional<process_pool<>> pool;
  const gate go;
  future<int> early;
  std::thread([&] {
    pool.emplace(2);
    early = pool->apply_async([go = go.in_task()] {
      go.pass();
      return 7;
    });
  }).join();
  CHECK(exercise(*pool) == "");
  go.open();
  CHECK(early.get() == 7);
  CHECK(pool->stats().workers_crashed == 1);
  std::thread([&] { pool.reset(); }).join();
}

#if !defined(__SANITIZE_ADDRESS__)  // GCC's AddressSanitizer, whose allocator's locks a fork does find held
TEST_CASE("a pool can be made while other threads hold every lock there is", "[process_pool][host]") {
  resources_unchanged guard;
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  for (int t = 0; t != 4; ++t) {
    threads.emplace_back([&] {
      while (!end) {
        // malloc, stdio, locale and environment each have locks that a fork could find held.
        std::vector<std::string> some(100, std::string(100, 'x'));
        static_cast<void>(std::to_string(some.size()));
        std::fflush(stdout);
        static_cast<void>(std::getenv("HOME"));
        std::setlocale(LC_ALL, "C");
      }
    });
  }
  for (int round = 0; round != 20; ++round) {
    process_pool pool(2, [] {
      std::vector<std::string> some(100, std::string(100, 'x'));
      std::printf("%s", some[0].substr(100).c_str());
    });
    CHECK(exercise(pool) == "");
  }
  end = true;
  for (auto& each : threads) each.join();
}

TEST_CASE("pools can be made and destroyed in several threads at once", "[process_pool][host]") {
  resources_unchanged guard;
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t != 4; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round != 10; ++round) {
        process_pool pool{2};
        if (exercise(pool).empty()) ++good;
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(good == 40);
}
#endif

TEST_CASE("two pools at once, each fed by many threads and by the other's callbacks", "[process_pool][host]") {
  resources_unchanged guard;
  process_pool first{2};
  process_pool second{2};
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t != 6; ++t) {
    threads.emplace_back([&, t] {
      auto& here = t % 2 == 0 ? first : second;
      auto& there = t % 2 == 0 ? second : first;
      for (int i = 0; i != 50; ++i) {
        auto chained = here.apply_async(twice, i).then([&](int x) { return there.apply(twice, x); });
        auto other = there.map_async(twice, std::views::iota(i, i + 10));
        if (chained.get() == 4 * i && other.get()[9] == 2 * (i + 9)) ++good;
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(good == 300);
  CHECK_THROWS_AS(first.apply(ways_to_die::raise_kill), worker_crashed);
  CHECK(second.stats().workers_crashed == 0);
  first.terminate();
  CHECK(second.apply(twice, 4) == 8);
}

TEST_CASE("a pool inside a task", "[process_pool][nested]") {
  resources_unchanged guard;
  const shared_words inner_worker(1);
  process_pool pool{2};
  SECTION("works") {
    const auto nested = [](int x) {
      process_pool inner{2};
      int sum = 0;
      for (const int each : inner.map(twice, std::views::iota(0, x))) sum += each;
      return sum;
    };
    CHECK(pool.map(nested, std::vector{5, 10, 15, 20}, 1) == std::vector{20, 90, 210, 380});
  }
  SECTION("knows its own workers") {
    const auto [index, generation] = pool.apply([] {
      process_pool inner(1, [] {
        if (this_worker::generation() != 0) throw std::runtime_error("generation");
      });
      return inner.apply([] { return std::pair(this_worker::index(), this_worker::generation()); });
    });
    CHECK(index == 0);
    CHECK(generation == 0);
  }
  SECTION("loses workers of its own") {
    CHECK(pool.apply([] {
      process_pool inner{2};
      return exercise(inner);
    }) == "");
    CHECK(pool.stats().workers_crashed == 0);
  }
  SECTION("throws its deaths to the task alone") {
    try {
      pool.apply([] {
        process_pool inner{1};
        return inner.apply(ways_to_die::raise_segv);
      });
      FAIL("nothing was thrown");
    } catch (const remote_error& error) {  // no worker of this pool has crashed
      CHECK_THAT(error.type_name(), Catch::Contains("worker_crashed"));
      CHECK_THAT(error.what(), Catch::Contains("signal 11"));
    }
    CHECK(pool.stats().workers_crashed == 0);
  }
  SECTION("goes with the task's worker") {
    CHECK_THROWS_AS(pool.apply([pid = inner_worker.in_task()] {
      process_pool inner{1};
      inner.apply([pid] { *pid = ::getpid(); });
      ::raise(SIGKILL);
    }),
                    worker_crashed);
    CHECK(inner_worker[0] > 0);
    CHECK(await_end(inner_worker[0]));
  }
  SECTION("may stay for the next task") {
    const auto ask = [](int x) {
      static process_pool inner{1};
      return inner.apply(twice, x);
    };
    for (int i = 0; i != 20; ++i) CHECK(pool.apply(ask, i) == 2 * i);
  }
  SECTION("three deep") {
    CHECK(pool.apply([] {
      process_pool inner{1};
      return inner.apply([] {
        process_pool innermost{1};
        return innermost.apply(twice, 21);
      });
    }) == 42);
  }
}

TEST_CASE("a worker cannot use the pool that it belongs to, nor another one of its parent", "[process_pool][nested]") {
  resources_unchanged guard;
  auto other = std::make_unique<process_pool<>>(1);
  static process_pool<>* shared = nullptr;
  static future<int>* unfinished = nullptr;
  auto pending = other->apply_async(twice, 3);
  shared = other.get();
  unfinished = &pending;
  process_pool pool{1};
  CHECK(pool.apply([] {
    std::string wrong;
    if (!is_logic_error([] { shared->apply(twice, 1); })) wrong += "apply ";
    if (!is_logic_error([] { shared->join(); })) wrong += "join ";
    if (!is_logic_error([] { unfinished->get(); })) wrong += "get ";
    shared->close();
    shared->terminate();
    return wrong;
  }) == "");
  CHECK(pending.get() == 6);
  CHECK(other->apply(twice, 4) == 8);
}

TEST_CASE("a forked child of the program cannot use its pool, and does it no harm", "[process_pool][fork]") {
  resources_unchanged guard;
  const gate go;
  auto pool = std::make_unique<process_pool<>>(2);
  auto pending = pool->apply_async([go = go.in_task()] {
    go.pass();
    return 5;
  });
  auto done = pool->apply_async(twice, 4);
  done.wait();
  auto lazy = pool->imap(twice, std::views::iota(0));
  CHECK(lazy.next() == 0);
  std::vector<int> in{1, 2, 3};
  std::vector<std::tuple<int>> tuples{{1}};
  CHECK(in_child([&] {
          std::string wrong;
          const auto refuses = [&](const char* what, auto call) {
            if (!is_logic_error(call)) wrong += std::string(what) + " ";
          };
          refuses("apply", [&] { pool->apply(twice, 1); });
          refuses("apply_async", [&] { pool->apply_async(twice, 1); });
          refuses("map", [&] { pool->map(twice, in); });
          refuses("map of nothing", [&] { pool->map(twice, std::vector<int>()); });
          refuses("map_async", [&] { pool->map_async(twice, in); });
          refuses("imap", [&] { pool->imap(twice, in); });
          refuses("starmap", [&] { pool->starmap(twice, tuples); });
          refuses("try_map", [&] { pool->try_map(twice, in); });
          refuses("transform_reduce", [&] { pool->transform_reduce(in, 0, std::plus<>(), twice); });
          refuses("broadcast", [&] { pool->broadcast(twice, 1); });
          refuses("with", [&] { pool->with({.buffersize = 1}).apply(twice, 1); });
          refuses("join", [&] { pool->join(); });
          refuses("stats", [&] { static_cast<void>(pool->stats()); });
          refuses("get", [&] { pending.get(); });
          refuses("wait", [&] { pending.wait(); });
          refuses("cancel", [&] { pending.cancel(); });
          refuses("next", [&] { lazy.next(); });
          pool->close();
          pool->terminate();
          if (pool->processes() != 2) wrong += "processes ";
          pool.reset();  // does nothing
          // It can have a pool of its own.
          process_pool own{1};
          if (own.apply(twice, 1) != 2) wrong += "own pool ";
          return wrong;
        }) == "");
  CHECK(done.get() == 8);
  go.open();
  CHECK(pending.get() == 5);
  CHECK(lazy.next() == 2);
  CHECK(exercise(*pool) == "");
}

TEST_CASE("a forked child of the program may exit with the pool in it", "[process_pool][fork]") {
  resources_unchanged guard;
  static std::optional<process_pool<>> pool;
  pool.emplace(2);
  auto result = pool->apply_async(twice, 4);
  for (int i = 0; i != 5; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      pool.reset();
      ::_exit(3);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 3);
  }
  CHECK(result.get() == 8);
  CHECK(exercise(*pool) == "");
  pool.reset();
}

TEST_CASE("a child of the program that lives on does not keep a pool's processes", "[process_pool][fork]") {
  resources_unchanged guard;
  const gate go;
  pid_t child = 0;
  pid_t worker = 0;
  pid_t zygote = 0;
  const auto start = std::chrono::steady_clock::now();
  {
    process_pool pool{2};
    worker = pool.apply([] { return ::getpid(); });
    zygote = pool.apply([] { return ::getppid(); });
    child = ::fork();
    if (child == 0) {
      go.pass();
      ::_exit(0);
    }
    CHECK(exercise(pool) == "");
  }
  CHECK(std::chrono::steady_clock::now() - start < 1500ms);
  CHECK(await_end(worker));
  CHECK(await_end(zygote));
  go.open();
  CHECK(::waitpid(child, nullptr, 0) == child);
}

TEST_CASE("a child of the program that lives on does not keep the workers of a parent that died",
          "[process_pool][fork]") {
  resources_unchanged guard;
  const gate go;
  const shared_words pids(2);
  {
    child_process parent([&]() -> std::string {
      process_pool pool{1};
      pids[0] = pool.apply([] { return ::getpid(); });
      if (::fork() == 0) {
        pids[1] = 1;
        go.pass();
        ::_exit(0);
      }
      for (;;) ::pause();
    });
    REQUIRE(eventually([&] { return pids[0] > 0 && pids[1] > 0; }));
    ::kill(parent.pid(), SIGKILL);
    CHECK(await_end(pids[0]));
  }
  go.open();
}

TEST_CASE("a pool with static storage duration ends with the program", "[process_pool][host]") {
  resources_unchanged guard;
  const shared_words runs(1);
  child_process program([&]() -> std::string {
    static process_pool<> pool{2};
    for (int i = 0; i != 50; ++i) pool.apply_async([runs = runs.in_task()] { ++*runs; });
    std::quick_exit(pool.apply(twice, 0));
  });
  CHECK(program.said() == "");
  child_process orderly([&]() -> std::string {
    static process_pool<> pool{2};
    runs[0] = 0;
    for (int i = 0; i != 50; ++i) pool.apply_async([runs = runs.in_task()] { ++*runs; });
    std::fclose(stdout);  // what Catch2 has to say is not this program's
    std::exit(0);
  });
  CHECK(orderly.said() == "");
  CHECK(runs[0] == 50);  // the destructor drops no task
}

TEST_CASE("a program can fork, exec and spawn while it has a pool", "[process_pool][host]") {
  resources_unchanged guard;
  process_pool pool{2};
  auto results = pool.map_async(twice, std::views::iota(0, 2000), 1);
  for (int i = 0; i != 20; ++i) {
    CHECK(::system("exit 3") == 3 << 8);
    pid_t child = 0;
    char name[] = "true";
    char* const arguments[] = {name, nullptr};
    char* const environment[] = {nullptr};
    REQUIRE(::posix_spawn(&child, "/bin/true", nullptr, nullptr, arguments, environment) == 0);
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(results.get().size() == 2000);
  CHECK(exercise(pool) == "");
}

TEST_CASE("a program that becomes a daemon makes its pool afterwards", "[process_pool][fork]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          process_pool before{1};  // of no use to the daemon
          static_cast<void>(before.apply(twice, 1));
          return in_child([] {
            ::setsid();
            return in_child([] {
              const std::string root = ::chdir("/") == 0 ? "" : "chdir failed";
              for (int fd = 0; fd != 3; ++fd) ::dup2(::open("/dev/null", O_RDWR), fd);
              process_pool pool{2};
              return root + exercise(pool);
            });
          });
        }) == "");
}
