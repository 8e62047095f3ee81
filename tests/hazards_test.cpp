// SPDX-License-Identifier: BSL-1.0
// What is known to go wrong with forked workers and shared memory, as far as no other file of tests is about it.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <ranges>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/detail/shared_memory/forked_workers.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>
#include <procpool/detail/shared_memory/worker_main.hpp>
#include <procpool/detail/shared_memory/zygote_link.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int twice(int x) { return 2 * x; }

/// The descriptors of this process that are of the kind that /proc names so.
std::vector<int> descriptors_of_kind(const std::string& kind) {
  std::vector<int> found;
  for (const std::string& name : names_in("/proc/self/fd")) {
    char target[PATH_MAX] = {};
    if (::readlink(("/proc/self/fd/" + name).c_str(), target, sizeof(target) - 1) > 0 &&
        std::string(target).starts_with(kind)) {
      found.push_back(std::atoi(name.c_str()));
    }
  }
  return found;
}

/// Handlers of news, for tests that drive the workers of a pool without its scheduler.
struct listener {
  std::vector<std::uint64_t> started_generations{};
  std::vector<std::uint64_t> ended_generations{};
  pid_t pid = 0;

  void started(std::size_t, std::uint64_t generation, pid_t of) {
    started_generations.push_back(generation);
    pid = of;
  }
  void refused(std::size_t, std::uint64_t, int) {}
  template <class End>
  void ended(std::size_t, std::uint64_t generation, const End&) {
    ended_generations.push_back(generation);
  }
  void hung_up(std::size_t) {}
  void vanished(std::size_t) {}
  void orphaned() {}
  void lost() {}
};

template <class Condition>
bool hear(detail::forked_workers& workers, listener& to, Condition condition) {
  return eventually([&] {
    workers.sleep(std::chrono::steady_clock::now() + 10ms);
    workers.handle(to);
    return condition();
  });
}

}  // namespace

TEST_CASE("a worker that cannot ring is heard all the same", "[process_pool][hazard]") {
  // As one that dies between publishing and ringing: the result is there and nobody says so.
  resources_unchanged guard;
  process_pool pool{1};
  CHECK(pool.apply([] {
    const std::vector<int> bells = descriptors_of_kind("anon_inode:[eventfd]");
    for (const int bell : bells) ::close(bell);
    return bells.size();  // the collector's and the leader's
  }) == 2);
  for (int i = 0; i != 2; ++i) {
    auto later = pool.apply_async([parent = ::getpid()] {
      await_threads_asleep(parent);
      return 7;
    });
    CHECK(later.get() == 7);
  }
  auto unwaited = pool.apply_async(twice, 4);
  CHECK(eventually([&] { return unwaited.ready(); }));
}

TEST_CASE("a task writes to a terminal that stops background writers, and goes on", "[process_pool][hazard]") {
  resources_unchanged guard;
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(terminal >= 0);
  REQUIRE(::grantpt(terminal) == 0);
  REQUIRE(::unlockpt(terminal) == 0);
  const std::string name = ::ptsname(terminal);
  {
    child_process app([&name] {
      ::setsid();
      const int own = ::open(name.c_str(), O_RDWR);  // the first that a session leader opens becomes its terminal
      termios mode{};
      if (::tcgetattr(own, &mode) != 0) return std::string("tcgetattr");
      mode.c_lflag |= TOSTOP;
      if (::tcsetattr(own, TCSANOW, &mode) != 0) return std::string("tcsetattr");
      if (::tcgetpgrp(own) != ::getpgrp()) return std::string("not in the foreground");
      ::dup2(own, STDOUT_FILENO);
      ::dup2(own, STDERR_FILENO);
      process_pool pool{1};
      for (int i = 0; i != 3; ++i) {
        auto written = pool.apply_async([] {
          std::printf("from a task\n");
          std::fprintf(stderr, "and its complaint\n");
          return ::write(STDOUT_FILENO, "directly\n", 9);
        });
        if (written.get(20s) != 9) return std::string("not written");
      }
      return std::string();
    });
    CHECK(app.said() == "");
  }
  std::string text(4096, '\0');
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::read(terminal, text.data(), text.size()))));
  CHECK_THAT(text, Catch::Contains("from a task") && Catch::Contains("complaint") && Catch::Contains("directly"));
  ::close(terminal);
}

TEST_CASE("a kill that comes too late hits nobody", "[process_pool][hazard]") {
  resources_unchanged guard;
  detail::engine_setup setup;
  setup.processes = 2;
  detail::forked_workers workers(std::move(setup));
  listener to;
  const auto start = [&](std::size_t lane, std::uint64_t generation) {
    const std::size_t before = to.started_generations.size();
    workers.spawn(lane, generation);
    REQUIRE(hear(workers, to, [&] { return to.started_generations.size() > before; }));
    return to.pid;
  };
  start(0, 0);
  workers.kill(0, 0);
  REQUIRE(hear(workers, to, [&] { return to.ended_generations.size() == 1; }));
  workers.kill(0, 0);  // reaped: its number may be anyone's by now
  const pid_t second = start(0, 1);
  workers.kill(0, 0);  // meant for the one before
  workers.kill(0, 2);
  // These have been obeyed once a later order has been; and who was killed before has died before.
  start(1, 7);
  workers.kill(1, 7);
  REQUIRE(hear(workers, to, [&] { return to.ended_generations.size() == 2; }));
  CHECK(to.ended_generations == std::vector<std::uint64_t>{0, 7});
  CHECK(is_alive(second));
  workers.stop();
  CHECK(await_end(second));
}

TEST_CASE("a zygote that nothing more is asked of ends by itself, after its last worker", "[process_pool][hazard]") {
  resources_unchanged guard;
  const std::string name = "t" + std::to_string(::getpid() % 100'000) + "/";
  const auto named = [&] {
    return std::ranges::count_if(all_processes(),
                                 [&](const auto& each) { return each.name.starts_with(name) && each.state != 'Z'; });
  };
  detail::engine_setup setup;
  setup.processes = 1;
  setup.name = name.substr(0, name.size() - 1);
  detail::forked_workers workers(std::move(setup));
  workers.spawn(0, 0);
  workers.stand_by();
  listener to;
  REQUIRE(hear(workers, to, [&] { return !to.started_generations.empty(); }));
  CHECK(named() == 3);
  workers.depart();
  CHECK(eventually([&] { return named() == 2; }));  // the spare has gone
  workers.kill(0, 0);
  CHECK(hear(workers, to, [&] { return !to.ended_generations.empty(); }));
  CHECK(eventually([&] { return named() == 0; }));
}

TEST_CASE("a worker whose zygote died before it could be watched leaves at once", "[process_pool][hazard]") {
  resources_unchanged guard;
  child_process orphan([]() -> std::string {
    detail::engine_setup setup;
    setup.processes = 1;
    detail::shared_region region(1);
    const detail::worker_bells bells;
    auto [ours, theirs] = detail::make_message_sockets();
    const detail::worker_plan plan{setup, region, bells};
    const pid_t no_longer_parent = ::getpid();  // nobody is its own parent
    detail::worker_main(plan, 0, 0, theirs.get(), no_longer_parent);
  });
  CHECK(eventually([&] { return !is_alive(orphan.pid()); }, 10s));
  ::kill(orphan.pid(), SIGKILL);
  const int status = orphan.wait();
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == EXIT_FAILURE);
}

TEST_CASE("a core dump holds no lane", "[process_pool][hazard]") {
  resources_unchanged guard;
  // Of all shared mappings that a write would reach: "dd" among the flags is MADV_DONTDUMP (proc(5), smaps).
  const auto dumped = [] {
    std::ifstream smaps("/proc/self/smaps");
    std::size_t lanes = 0;
    std::size_t in_dumps = 0;
    bool lane = false;
    for (std::string line; std::getline(smaps, line);) {
      const std::size_t dash = line.find('-');
      const std::size_t space = line.find(' ');
      if (dash != std::string::npos && dash < space && line.find_first_of("0123456789abcdef") == 0) {
        lane = line.find("/dev/zero") != std::string::npos && line[space + 4] == 's';
        if (lane) ++lanes;
      } else if (lane && line.starts_with("VmFlags:") && line.find(" dd") == std::string::npos) {
        ++in_dumps;
      }
    }
    return std::pair(lanes, in_dumps);
  };
  process_pool pool{2};
  const auto [in_parent, dumped_by_parent] = dumped();
  const auto [in_worker, dumped_by_worker] = pool.apply(dumped);
  CHECK(in_parent >= 2);
  CHECK(dumped_by_parent == 0);
  CHECK(in_worker >= 2);
  CHECK(dumped_by_worker == 0);
}

TEST_CASE("what a pool writes without asking for memory has memory", "[process_pool][hazard]") {
  resources_unchanged guard;
  detail::shared_region region(2);
  region.prepare(1);
  const auto without_memory = [](const void* at, std::size_t bytes) {
    std::vector<unsigned char> pages(bytes / detail::lane_page);
    REQUIRE(::mincore(const_cast<void*>(at), bytes, pages.data()) == 0);
    std::size_t missing = 0;
    for (const unsigned char page : pages) missing += (page & 1) == 0 ? 1 : 0;
    return missing;
  };
  const auto missing = [&](std::size_t lane) {
    return without_memory(&region.requests(lane), detail::region_layout::request_start) +
           without_memory(&region.replies(lane), detail::region_layout::reply_start);
  };
  CHECK(missing(0) > 0);  // or this test would see nothing
  CHECK(missing(1) == 0);
  // Also for a replacement, whose lane is cleared.
  region.replies(1).ring[100] = std::byte{1};
  region.prepare(1);
  CHECK(region.replies(1).ring[100] == std::byte{0});
  CHECK(missing(1) == 0);
}

TEST_CASE("the words that processes sleep on may wrap around", "[process_pool][hazard]") {
  resources_unchanged guard;
  process_pool pool{1};
  // The parent adds to a word in the lane whenever it wakes the worker; the task itself cannot write there.
  detail::shared_region region(1);
  region.prepare(0);
  detail::request_half& requests = region.requests(0);
  const std::uint32_t before_wrap = ~std::uint32_t{0};
  requests.wake.store(before_wrap);
  detail::lane_port port(region, 0);
  auto [ours, theirs] = detail::make_message_sockets();
  port.reset(0, detail::registered_fd(std::move(ours)));
  region.replies(0).asleep.store(detail::sleeping_for::work);
  port.wake();
  CHECK(requests.wake.load() == 0);
  // A sleeper that saw the word before it wrapped does not sleep on.
  CHECK(detail::futex_wait(requests.wake, before_wrap, std::chrono::steady_clock::now() + 20s,
                           detail::futex_scope::shared));
  port.close();
}

TEST_CASE("workers that are seeded by their index draw different numbers", "[process_pool][hazard]") {
  resources_unchanged guard;
  static std::mt19937_64 generator;
  const auto draw = [] { return std::pair(::getpid(), generator()); };
  {
    // What happens without: each replacement begins where its predecessor began.
    process_pool pool{pool_options{.processes = 1, .max_tasks_per_child = 1}};
    const auto first = pool.apply(draw);
    const auto second = pool.apply(draw);
    CHECK(first.first != second.first);
    CHECK(first.second == second.second);
  }
  process_pool pool{pool_options{.processes = 3,
                                 .initializer =
                                     [] {
                                       std::seed_seq seed{this_worker::index(), this_worker::generation()};
                                       generator.seed(seed);
                                     },
                                 .max_tasks_per_child = 1}};
  std::set<std::uint64_t> numbers;
  for (const auto& each : pool.map([draw](int) { return draw(); }, std::views::iota(0, 30), 1)) {
    numbers.insert(each.second);
  }
  CHECK(numbers.size() == 30);
}

TEST_CASE("secrets can be kept from workers", "[process_pool][hazard]") {
  resources_unchanged guard;
  const auto page = [](int advice) {
    void* const at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *static_cast<int*>(at) = 4711;
    if (advice != 0) ::madvise(at, 4096, advice);
    return static_cast<int*>(at);
  };
  static int* plain;
  static int* wiped;
  static int* kept;
  static int* late;
  plain = page(0);
  wiped = page(MADV_WIPEONFORK);
  kept = page(MADV_DONTFORK);
  late = page(0);
  *late = 0;
  {
    process_pool pool{1};
    *late = 4711;
    CHECK(pool.apply([] { return *plain; }) == 4711);
    CHECK(pool.apply([] { return *wiped; }) == 0);
    CHECK(pool.apply([] { return *late; }) == 0);
    // Where nothing is, a worker may have put something else.
    int found = 0;
    try {
      found = pool.apply([] { return *kept; });
    } catch (const worker_crashed& crash) {
      CHECK(crash.signal() == SIGSEGV);
    }
    CHECK(found != 4711);
    CHECK(*wiped + *kept + *late == 3 * 4711);  // untouched where they belong
  }
  for (int* const each : {plain, wiped, kept, late}) ::munmap(each, 4096);
}

TEST_CASE("a zygote without descriptors says so, and the pool goes on when it has some", "[process_pool][hazard]") {
  resources_unchanged guard;
  const bool lifted = GENERATE(true, false);
  CAPTURE(lifted);
  process_pool pool{1};
  const pid_t zygote = pool.apply([] { return ::getppid(); });
  // A descriptor beside a message that finds no room is dropped without an error (unix(7), MSG_CTRUNC).
  rlimit before{};
  REQUIRE(::prlimit(zygote, RLIMIT_NOFILE, nullptr, &before) == 0);
  const rlimit none{0, before.rlim_max};
  REQUIRE(::prlimit(zygote, RLIMIT_NOFILE, &none, nullptr) == 0);
  auto doomed = pool.apply_async(ways_to_die::raise_kill);
  auto next = pool.apply_async(twice, 4);
  CHECK_THROWS_AS(doomed.get(), worker_crashed);
  if (lifted) {
    CHECK(next.wait_for(20ms) != std::future_status::ready);
    REQUIRE(::prlimit(zygote, RLIMIT_NOFILE, &before, nullptr) == 0);
    CHECK(next.get() == 8);
  } else {
    CHECK_THAT(text_of<pool_broken>([&] { next.get(); }), Catch::Contains("Too many open files"));
  }
}

namespace {

/// A zygote, and this process in place of the pool.
class lone_zygote {
 public:
  detail::zygote_event news() {
    detail::zygote_event event{};
    REQUIRE(eventually([&] { return link.next(event) == detail::received::message; }));
    return event;
  }

 private:
  detail::engine_setup setup_{};  // one worker
  detail::shared_region region_{1};
  detail::worker_bells bells_;

 public:
  detail::zygote_link link{detail::worker_plan{setup_, region_, bells_}, "/zygote"};
};

}  // namespace

TEST_CASE("a zygote without descriptors says so of the first worker, too", "[process_pool][hazard]") {
  resources_unchanged guard;
  lone_zygote zygote;
  const auto hello = zygote.news();
  REQUIRE(hello.news == detail::zygote_news::alive);
  const rlimit none{0, 0};
  REQUIRE(::prlimit(hello.pid, RLIMIT_NOFILE, &none, nullptr) == 0);
  const auto [ours, theirs] = detail::make_message_sockets();
  // Before it starts the first, it prepares what all are to inherit: that must not hide why it cannot.
  REQUIRE(zygote.link.spawn(0, 0, 0, theirs.get()));
  const auto answer = zygote.news();
  CHECK(answer.news == detail::zygote_news::refused);
  CHECK(answer.error == EMFILE);
}

TEST_CASE("a zygote and a parent that have much to say to each other do not wait for each other",
          "[process_pool][hazard]") {
  resources_unchanged guard;
  lone_zygote zygote;
  // More than both directions hold, as where hundreds of workers start at once. An order without a socket is refused.
  constexpr std::uint64_t orders = 5'000;
  for (std::uint64_t generation = 0; generation != orders; ++generation) {
    const detail::zygote_request order{detail::zygote_order::spawn, 0, 0, 0, generation};
    REQUIRE(eventually([&] { return detail::send_message(zygote.link.fd(), order, {}, MSG_DONTWAIT); }));
  }
  REQUIRE(zygote.news().news == detail::zygote_news::alive);
  for (std::uint64_t generation = 0; generation != orders; ++generation) {
    const auto answer = zygote.news();
    REQUIRE(answer.news == detail::zygote_news::refused);
    REQUIRE(answer.generation == generation);
  }
}

TEST_CASE("what ended while the program stood still is no time-out", "[process_pool][hazard]") {
  resources_unchanged guard;
  constexpr auto limit = 3s;
  const gate started;
  const gate finish;
  const gate finished;
  child_process app([&] {
    process_pool pool{1};
    auto result = pool.with({.timeout = limit}).apply_async([finish = finish.in_task(), finished = finished.in_task()] {
      finish.pass();
      finished.open();
      return 7;
    });
    if (!eventually([&] { return result.running(); })) return std::string("does not start");
    started.open();
    try {
      return result.get() == 7 ? std::string() : std::string("wrong result");
    } catch (const task_timeout&) {
      return std::string("timed out");
    }
  });
  REQUIRE(started.is_open(20'000));
  ::kill(app.pid(), SIGSTOP);
  REQUIRE(eventually([&] {
    const auto status = status_of(app.pid());
    return status && status->state == 'T';
  }));
  finish.open();
  REQUIRE(finished.is_open(20'000));
  std::this_thread::sleep_for(limit + 500ms);  // the limit is long past when it goes on
  ::kill(app.pid(), SIGCONT);
  CHECK(app.said() == "");
}
