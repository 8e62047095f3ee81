// SPDX-License-Identifier: BSL-1.0
// What a task finds around it: who it is, signals, standard streams, memory, and what becomes of it with its parent.
#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <ranges>
#include <set>
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
#include "support/processors.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"
#include "support/tasks.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

std::string first_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool is_fatal(int signal) {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL || signal == SIGABRT ||
         signal == SIGTRAP || signal == SIGSYS;
}

/// What is not as a new program finds it; in a worker.
std::string unusual_signals() {
  std::string found;
  for (int signal = 1; signal < SIGRTMAX; ++signal) {
    struct sigaction action{};
    if (::sigaction(signal, nullptr, &action) != 0) continue;
    if (action.sa_handler == SIG_IGN || (action.sa_handler != SIG_DFL && !is_fatal(signal))) {
      found += "disposition of " + std::to_string(signal) + "; ";
    }
  }
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  for (int signal = 1; signal < SIGRTMAX; ++signal) {
    if (::sigismember(&mask, signal) == 1) found += "blocked " + std::to_string(signal) + "; ";
  }
  sigset_t pending;
  ::sigpending(&pending);
  for (int signal = 1; signal < SIGRTMAX; ++signal) {
    if (::sigismember(&pending, signal) == 1) found += "pending " + std::to_string(signal) + "; ";
  }
  return found;
}

/// Changed by tests, in the parent and in workers.
int state = 0;
int get_state() { return state; }

}  // namespace

TEST_CASE("a task, an initializer and a finalizer know their worker", "[this_worker]") {
  resources_unchanged guard;
  const shared_words told(6);
  {
    process_pool pool{pool_options{
        .processes = 3,
        .initializer = [told = told.in_task()] { told[this_worker::index()] += this_worker::in_worker() ? 1 : 100; },
        .finalizer = [told = told.in_task()] { told[3 + this_worker::index()] += this_worker::in_worker() ? 1 : 100; },
        .max_tasks_per_child = 2}};
    for (int i = 0; i != 10; ++i) {
      const auto [index, generation, inside] = pool.apply(
          [] { return std::tuple(this_worker::index(), this_worker::generation(), this_worker::in_worker()); });
      CHECK(index < 3);
      CHECK(generation <= 5);
      CHECK(inside);
    }
    CHECK(pool.apply([] {
      bool right = false;
      const auto outside = std::pair(this_worker::index(), this_worker::generation());
      std::thread([&] {
        right = this_worker::in_worker() && outside == std::pair(this_worker::index(), this_worker::generation());
      }).join();
      return right;
    }));
  }
  int starts = 0;
  int ends = 0;
  for (std::size_t i = 0; i != 3; ++i) {
    starts += told[i];
    ends += told[3 + i];
  }
  CHECK(starts > 3);
  CHECK(ends == starts);
  CHECK(starts < 100);
}

TEST_CASE("outside of a worker there is no index", "[this_worker]") {
  process_pool pool{1};
  CHECK_FALSE(this_worker::in_worker());
  CHECK_THROWS_AS(this_worker::index(), std::logic_error);
  CHECK_THROWS_AS(this_worker::generation(), std::logic_error);
  auto callback = pool.apply_async(twice, 1).then([](int) { return this_worker::in_worker(); });
  CHECK_FALSE(callback.get());
}

TEST_CASE("workers start with the signals of a new program, but for SIGPIPE", "[process_pool][signals]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          struct sigaction handler{};
          handler.sa_handler = [](int) { ::_exit(66); };
          for (int signal = 1; signal < SIGRTMAX; ++signal) ::sigaction(signal, &handler, nullptr);
          ::signal(SIGPIPE, SIG_IGN);
          ::signal(SIGHUP, SIG_IGN);
          ::signal(SIGINT, SIG_IGN);
          sigset_t some;
          ::sigemptyset(&some);
          ::sigaddset(&some, SIGUSR1);
          ::sigaddset(&some, SIGTERM);
          ::sigaddset(&some, SIGCHLD);
          ::pthread_sigmask(SIG_BLOCK, &some, nullptr);
          ::raise(SIGUSR1);  // pending here, not in the workers
          process_pool pool{pool_options{.processes = 1, .initializer = [] {
                                           const std::string found = unusual_signals();
                                           const std::string expected =
                                               "disposition of " + std::to_string(SIGPIPE) + "; ";
                                           if (found != expected) throw std::runtime_error(found);
                                         }}};
          std::string found = pool.apply(unusual_signals);
          const std::string expected = "disposition of " + std::to_string(SIGPIPE) + "; ";
          if (found != expected) return "in a worker: " + found;
          try {
            pool.apply([] { return ::raise(SIGTERM); });
            return std::string("SIGTERM did not end the worker");
          } catch (const worker_crashed& crash) {
            if (crash.signal() != SIGTERM) return std::string(crash.what());
          }
          found = pool.apply(unusual_signals);
          if (found != expected) return "in a replacement: " + found;
          // The application's own are as they were.
          struct sigaction now{};
          ::sigaction(SIGCHLD, nullptr, &now);
          if (now.sa_handler != handler.sa_handler) return std::string("SIGCHLD has changed");
          sigset_t mask;
          ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
          for (int signal = 1; signal < SIGRTMAX; ++signal) {
            if (::sigismember(&mask, signal) != ::sigismember(&some, signal))
              return "mask of " + std::to_string(signal);
          }
          return std::string();
        }) == "");
  CHECK(in_child([] {
          ::signal(SIGPIPE, SIG_DFL);
          process_pool pool{1};
          return pool.apply(unusual_signals);
        }) == "");
}

TEST_CASE("what goes to the application's process group does not reach the workers", "[process_pool][signals]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          ::setpgid(0, 0);
          static volatile sig_atomic_t interrupts = 0;
          interrupts = 0;
          ::signal(SIGINT, [](int) { interrupts = interrupts + 1; });
          ::signal(SIGTERM, [](int) { interrupts = interrupts + 1; });
          const gate go;
          process_pool pool{2};
          auto result = pool.apply_async([go = go.in_task()] {
            go.pass();
            return std::pair(::getpgrp() == ::getpid(), ::getpid());
          });
          if (!eventually([&] { return result.running(); })) return std::string("does not start");
          ::kill(0, SIGINT);
          ::kill(0, SIGTERM);
          go.open();
          const auto [own_group, worker] = result.get();
          if (interrupts != 2) return std::string("the application got no signal");
          if (!own_group) return std::string("the worker has no process group of its own");
          const auto status = status_of(worker);
          if (!status || status_of(status->parent)->group == ::getpgrp()) {
            return std::string("the zygote is in the application's process group");
          }
          if (pool.stats().workers_crashed != 0) return std::string("a worker died");
          try {
            pool.apply(ways_to_die::raise_kill);
          } catch (const worker_crashed&) {
          }
          return pool.apply(twice, 4) == 8 ? std::string() : std::string("no replacement");
        }) == "");
}

TEST_CASE("workers read nothing from standard input", "[process_pool]") {
  resources_unchanged guard;
  CHECK(in_child([] {
          int ends[2];
          if (::pipe(ends) != 0 || ::write(ends[1], "text", 4) != 4) return std::string("pipe failed");
          ::dup2(ends[0], STDIN_FILENO);
          {
            process_pool pool{pool_options{.processes = 1, .initializer = [] {
                                             if (std::cin.get() != EOF) throw std::runtime_error("initializer reads");
                                           }}};
            if (pool.apply([] {
                  char read = 0;
                  return ::read(STDIN_FILENO, &read, 1);
                }) != 0) {
              return std::string("a task reads");
            }
          }
          char text[5] = {};
          return ::read(STDIN_FILENO, text, 4) == 4 && std::string(text) == "text" ? std::string()
                                                                                   : std::string("text is gone");
        }) == "");
}

TEST_CASE("a program without standard streams can have a pool", "[process_pool]") {
  resources_unchanged guard;
  const std::vector<int> closed = GENERATE(std::vector{0}, std::vector{1}, std::vector{2}, std::vector{0, 1, 2});
  CAPTURE(closed);
  CHECK(in_child([&closed] {
          const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
          for (int fd = 0; fd != 3; ++fd) ::dup2(null, fd);
          ::close(null);
          for (const int fd : closed) ::close(fd);
          process_pool pool{2};
          for (int i = 0; i != 20; ++i) {
            // What the task prints must not end up where the pool's messages go.
            const int result = pool.apply(
                [](int x) {
                  std::printf("text that goes nowhere\n");
                  std::cout << "more of it\n";
                  std::cerr << "and more\n";
                  return 2 * x;
                },
                i);
            if (result != 2 * i) return std::string("wrong result");
            if (i % 5 == 4) {
              try {
                pool.apply(ways_to_die::raise_kill);
              } catch (const worker_crashed&) {
              }
            }
          }
          const auto array = pool.apply([] { return make_shared_array<int>(100); });
          return array.size() == 100 ? std::string() : std::string("no array");
        }) == "");
}

TEST_CASE("workers are named after the pool and their index", "[process_pool]") {
  resources_unchanged guard;
  const auto name_in = [](pool_options options, std::size_t index) {
    process_pool pool{std::move(options)};
    auto place = pool.make_shared_array<char>(16);
    pool.broadcast(
        [](shared_array<char> to, std::size_t wanted) {
          if (this_worker::index() == wanted) first_line_of("/proc/self/comm").copy(to.data(), 15);
        },
        place, index);
    return std::string(place.data());
  };
  CHECK(name_in(pool_options{.processes = 2}, 1) == "procpool/1");
  CHECK(name_in(pool_options{.processes = 1, .name = "render"}, 0) == "render/0");
  CHECK(name_in(pool_options{.processes = 1, .name = "exactly-13-ch"}, 0) == "exactly-13-ch/0");
  CHECK(name_in(pool_options{.processes = 1, .name = "a-name-that-is-far-too-long"}, 0) == "a-name-that-i/0");
  CHECK(name_in(pool_options{.processes = 11, .name = "a-name-that-is-far-too-long"}, 10) == "a-name-that-/10");
  CHECK(name_in(pool_options{.processes = 1, .name = ""}, 0) == "/0");
  CHECK(name_in(pool_options{.processes = 1, .name = "with space (1)"}, 0) == "with space (1/0");
}

TEST_CASE("a replacement has the name of its index", "[process_pool][crash]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 1, .name = "again"}};
  CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
  CHECK(pool.apply([] { return first_line_of("/proc/self/comm"); }) == "again/0");
}

namespace {

shared_words::word* exits = nullptr;
pid_t application = 0;

struct counts_its_end {
  ~counts_its_end() {
    if (exits != nullptr && ::getpid() != application) ++*exits;
  }
};
void count_exit() { counts_its_end(); }

}  // namespace

TEST_CASE("neither exit handlers nor static destructors of the application run in a worker", "[process_pool]") {
  for (const death& how : all_deaths()) {
    DYNAMIC_SECTION(how.name) {
      resources_unchanged guard;
      const shared_words ends(1);
      CHECK(in_child([&] {
              application = ::getpid();
              exits = ends.in_task();
              static const counts_its_end static_object;
              std::atexit(count_exit);
              std::at_quick_exit(count_exit);
              {
                process_pool pool{2};
                const counts_its_end local_object;
                pool.apply(twice, 1);
                try {
                  pool.apply(how.die);
                } catch (const worker_crashed&) {
                }
                pool.broadcast(twice, 1);
              }
              return std::string();
            }) == "");
      CHECK(ends[0] == 0);
    }
  }
}

TEST_CASE("a task sees the program as it was when the pool was made", "[process_pool]") {
  resources_unchanged guard;
  const auto on_heap = std::make_unique<std::string>("before");
  state = 1;
  process_pool pool{1};
  state = 2;
  *on_heap = "after";
  const auto text = [at = on_heap.get()] { return *at; };
  CHECK(pool.apply(get_state) == 1);
  CHECK(pool.apply(text) == "before");
  pool.apply([] { state = 77; });
  pool.apply([at = on_heap.get()] { *at = "changed by a task"; });
  CHECK(state == 2);
  CHECK(*on_heap == "after");
  // What a task leaves is there for the next one of the same process, and gone in a replacement.
  CHECK(pool.apply(get_state) == 77);
  CHECK_THROWS_AS(pool.apply(ways_to_die::raise_segv), worker_crashed);
  CHECK(pool.apply(get_state) == 1);
  CHECK(pool.apply(text) == "before");
  state = 0;
}

TEST_CASE("workers are the first to go when memory runs out", "[process_pool]") {
  resources_unchanged guard;
  const auto score = [] { return std::stoi(first_line_of("/proc/self/oom_score_adj")); };
  const int own = score();
  {
    process_pool pool{1};
    const int worker = pool.apply(score);
    CHECK((worker > own || own == 1000));
    // What forks them is as little to go first as the application.
    const pid_t zygote = pool.apply([] { return ::getppid(); });
    const std::string its_score = "/proc/" + std::to_string(zygote) + "/oom_score_adj";
    CHECK(eventually([&] { return std::stoi(first_line_of(its_score)) == own; }));
    ::kill(pool.apply([] { return ::getpid(); }), SIGKILL);
    CHECK(eventually([&] { return pool.stats().workers_crashed == 1; }));
    CHECK(pool.apply(score) == worker);
  }
  CHECK(score() == own);
  // Never less than the application has been given.
  CHECK(in_child([&score] {
          std::ofstream("/proc/self/oom_score_adj") << 900;
          process_pool pool{1};
          const int worker = pool.apply(score);
          return worker >= 900 ? std::string() : std::to_string(worker);
        }) == "");
}

TEST_CASE("what a task started dies with its worker", "[process_pool][crash]") {
  resources_unchanged guard;
  const auto start = [] {
    const pid_t child = ::fork();
    if (child == 0) {
      ::execl("/bin/sleep", "sleep", "1000", nullptr);
      ::_exit(1);
    }
    return child;
  };
  pid_t child = 0;
  SECTION("when it crashes") {
    process_pool pool{1};
    child = pool.apply(start);
    CHECK(is_alive(child));
    CHECK_THROWS_AS(pool.apply(ways_to_die::raise_segv), worker_crashed);
  }
  SECTION("when it retires") {
    process_pool pool{pool_options{.processes = 1, .max_tasks_per_child = 1}};
    child = pool.apply(start);
  }
  SECTION("when the pool is closed") {
    process_pool pool{1};
    child = pool.apply(start);
  }
  SECTION("when the pool is terminated") {
    process_pool pool{1};
    child = pool.apply(start);
    CHECK(is_alive(child));
    pool.terminate();
  }
  CHECK(child > 0);
  CHECK(await_end(child));
}

TEST_CASE("workers are gone when their parent is, however it ended", "[process_pool][crash]") {
  resources_unchanged guard;
  const shared_words pids(4);
  const gate ready;
  enum class end { kill, fast_exit, abort, exec, stop_and_kill };
  const end how = GENERATE(end::kill, end::fast_exit, end::abort, end::exec, end::stop_and_kill);
  CAPTURE(static_cast<int>(how));
  {
    child_process parent([&]() -> std::string {
      auto* pool = new process_pool<>(3);
      std::vector<future<int>> hung;
      for (int i = 0; i != 3; ++i) {
        hung.push_back(pool->apply_async([pids = pids.in_task()] {
          pids[this_worker::index()] = ::getpid();
          pids[3] = ::getppid();
          sigset_t all;
          ::sigfillset(&all);
          ::sigprocmask(SIG_BLOCK, &all, nullptr);
          return this_worker::index() == 1 ? ::raise(SIGSTOP) + hang() : hang();
        }));
      }
      if (!eventually([&] { return pids[0] != 0 && pids[1] != 0 && pids[2] != 0; })) return "workers do not start";
      ready.open();
      if (how == end::fast_exit) ::_exit(0);
      if (how == end::abort) std::abort();
      if (how == end::exec) ::execl("/bin/sleep", "sleep", "30", nullptr);
      hang();
      return "";
    });
    REQUIRE(ready.is_open(20'000));
    for (const auto& pid : pids) CHECK(pid > 0);
    if (how == end::stop_and_kill) ::kill(parent.pid(), SIGSTOP);
    if (how == end::kill || how == end::stop_and_kill) ::kill(parent.pid(), SIGKILL);
    for (const auto& pid : pids) CHECK(await_end(pid));
  }
}

TEST_CASE("workers hold no descriptors of another pool, and hand none on to programs", "[process_pool]") {
  resources_unchanged guard;
  const auto open_here = [] {
    std::set<std::string> open;
    for (const std::string& name : names_in("/proc/self/fd")) open.insert(name);
    return open.size();
  };
  const auto inherited_by_program = [] {
    // Each line is a descriptor of the program; its own one of the directory is always there.
    std::FILE* const listing = ::popen("ls /proc/self/fd | wc -l", "r");
    char text[20] = {};
    const bool read = listing != nullptr && std::fgets(text, sizeof(text), listing) != nullptr;
    if (listing != nullptr) ::pclose(listing);
    return read ? std::atoi(text) : -1;
  };
  const int before = inherited_by_program();
  process_pool first{3};
  const std::size_t in_first = first.apply(open_here);
  process_pool second{3};
  process_pool third{3};
  auto array = first.make_shared_array<int>(10);
  CHECK(third.apply(open_here) == in_first);
  CHECK_THROWS_AS(third.apply(ways_to_die::raise_kill), worker_crashed);
  third.broadcast([] {});
  CHECK(third.apply(open_here) == in_first);
  CHECK(inherited_by_program() == before);
  CHECK(third.apply(inherited_by_program) == before);
}

TEST_CASE("workers hold no descriptors of another pool that starts workers meanwhile", "[process_pool]") {
  resources_unchanged guard;
  const auto open_sockets = [] {
    const std::vector<std::string> open = names_in("/proc/self/fd");
    return std::count_if(open.begin(), open.end(), [](const std::string& name) {
      char target[8] = {};
      return ::readlink(("/proc/self/fd/" + name).c_str(), target, sizeof(target) - 1) > 0 &&
             std::string(target).starts_with("socket:");
    });
  };
  const auto alone = process_pool{1}.apply(open_sockets);
  process_pool busy{2};
  std::atomic<bool> done{false};
  std::thread starts_workers([&] {
    while (!done) busy.try_map([](int) { ::raise(SIGKILL); }, std::views::iota(0, 10));
  });
  for (int round = 0; round != 50; ++round) CHECK(process_pool{1}.apply(open_sockets) == alone);
  done = true;
  starts_workers.join();
}

TEST_CASE("a task is told which processor it runs on", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{1};
  CHECK(processors_told_wrongly() == 0);
  CHECK(pool.apply(processors_told_wrongly) == 0);
  CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
  CHECK(pool.apply(processors_told_wrongly) == 0);  // in its replacement
}

TEST_CASE("a task can use threads, children and signals of its own", "[process_pool]") {
  resources_unchanged guard;
  process_pool pool{1};
  CHECK(pool.apply([] {
    int sum = 0;
    std::thread([&] { sum += 1; }).join();
    const pid_t child = ::fork();
    if (child == 0) ::_exit(10);
    int status = 0;
    if (::waitpid(child, &status, 0) == child) sum += WEXITSTATUS(status);
    static volatile sig_atomic_t handled = 0;
    ::signal(SIGUSR1, [](int) { handled = 100; });
    ::raise(SIGUSR1);
    sum += handled;
    std::FILE* const echo = ::popen("echo 1000", "r");
    int thousand = 0;
    if (std::fscanf(echo, "%d", &thousand) == 1) sum += thousand;
    ::pclose(echo);
    return sum;
  }) == 1111);
}
