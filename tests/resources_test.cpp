// SPDX-License-Identifier: BSL-1.0
// Nothing of a pool is left after it: each way in which one can end, checked for descriptors, threads, children,
// zombies, shared mappings and processes anywhere.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
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

#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/tasks.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

/// Some of everything that a pool does.
void use(process_pool<>& pool) {
  CHECK(pool.apply(twice, 4) == 8);
  CHECK(pool.map(twice, std::views::iota(0, 100)).size() == 100);
  CHECK(pool.apply([](std::string text) { return text; }, std::string(1'000'000, 'x')).size() == 1'000'000);
  CHECK(pool.apply_async(twice, 4).then(twice).get() == 16);
  auto array = pool.make_shared_array<int>(100);
  pool.apply([](shared_array<int> to) { to[1] = 1; }, array);
  CHECK(pool.apply([] { return make_shared_array<int>(5); }).size() == 5);
  auto lazy = pool.imap(twice, std::views::iota(0));
  CHECK(lazy.next() == 0);
}

/// Processes whose name begins with that.
std::size_t named(const std::string& prefix) {
  return static_cast<std::size_t>(std::ranges::count_if(
      all_processes(), [&](const process_status& each) { return each.state != 'Z' && each.name.starts_with(prefix); }));
}

}  // namespace

TEST_CASE("the guard of these tests sees what is left", "[resources]") {
  // What resources_unchanged compares must change with each of these, or its checks are worth nothing.
  const resources before = resources::now();
  CHECK(before.held == resources::now().held);
  const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK_THAT(resources::added(before, resources::now()),
             Catch::Contains("descriptor " + std::to_string(fd) + ": /dev/null"));
  ::close(fd);
  void* const mapped = ::mmap(nullptr, 4096, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK_THAT(resources::added(before, resources::now()), Catch::StartsWith("shared mapping"));
  ::munmap(mapped, 4096);
  const gate go;
  const resources with_gate = resources::now();
  std::thread thread([&] { go.pass(); });
  CHECK_THAT(resources::added(with_gate, resources::now()), Catch::StartsWith("thread "));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  CHECK(eventually([&] { return status_of(child)->state == 'Z'; }));
  CHECK_THAT(resources::added(with_gate, resources::now()), Catch::Contains("child " + std::to_string(child) + "\n"));
  ::waitpid(child, nullptr, 0);
  go.open();
  thread.join();
}

TEST_CASE("a pool has the processes that it should", "[resources]") {
  const std::string name = "t" + std::to_string(::getpid() % 100'000);
  {
    process_pool pool{pool_options{.processes = 3, .name = name}};
    CHECK(named(name + "/") == 5);  // and the zygote and its spare
    for (const worker_stats& each : pool.stats().workers) {
      const auto status = status_of(each.pid);
      REQUIRE(status);
      CHECK(status->name == name + "/" + std::to_string(each.index));
      CHECK(status->group == each.pid);
      CHECK(status->parent != ::getpid());
    }
    CHECK(children_of(::getpid()).empty());
  }
  CHECK(eventually([&] { return named(name + "/") == 0; }));
}

TEST_CASE("nothing is left after a pool", "[resources]") {
  resources_unchanged guard;
  SECTION("that was never used") { process_pool pool{3}; }
  SECTION("that was destroyed") {
    process_pool pool{3};
    use(pool);
  }
  SECTION("that was closed and joined, though it lives on") {
    process_pool pool{3};
    use(pool);
    pool.close();
    pool.join();
    guard.check();
  }
  SECTION("that was terminated and joined, though it lives on") {
    process_pool pool{3};
    use(pool);
    pool.terminate();
    pool.join();
    guard.check();
  }
  SECTION("that was terminated amid work") {
    process_pool pool{3};
    use(pool);
    auto hung = pool.apply_async(hang);
    auto queued = pool.map_async(twice, std::views::iota(0, 100'000));
    pool.terminate();
    CHECK_THROWS_AS(hung.get(), pool_terminated);
  }
  SECTION("whose worker crashed") {
    process_pool pool{3};
    use(pool);
    for (const death& how : all_deaths()) CHECK_THROWS_AS(pool.apply(how.die), worker_crashed);
    use(pool);
  }
  SECTION("whose workers were replaced") {
    process_pool pool{pool_options{.processes = 3, .max_tasks_per_child = 2}};
    use(pool);
  }
  SECTION("that could not start") {
    CHECK_THROWS_AS(process_pool<>(3, [] { throw std::runtime_error("no"); }), worker_start_error);
    CHECK_THROWS_AS(process_pool<>(3, [] { ::raise(SIGKILL); }), worker_start_error);
  }
  SECTION("that broke") {
    process_pool pool{pool_options{.processes = 1, .initializer = [] {
                                     if (this_worker::generation() > 0) std::abort();
                                   }}};
    CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
    CHECK_THROWS_AS(pool.apply(twice, 1), pool_broken);
  }
  SECTION("whose zygote was killed") {
    process_pool pool{2};
    use(pool);
    for (bool broken = false; !broken;) {
      try {
        ::kill(pool.apply([] { return ::getppid(); }), SIGKILL);
      } catch (const worker_crashed&) {
      } catch (const pool_broken&) {
        broken = true;
      }
    }
  }
  SECTION("whose zygote was killed once") {
    process_pool pool{2};
    use(pool);
    REQUIRE(::kill(pool.apply([] { return ::getppid(); }), SIGKILL) == 0);
    CHECK(pool.with({.retries = 3}).apply(twice, 4) == 8);
  }
  SECTION("that an exception ended") {
    try {
      process_pool pool{2};
      auto pending = pool.map_async(twice, std::views::iota(0, 1000));
      throw std::runtime_error("unwinding");
    } catch (const std::runtime_error&) {
    }
  }
  SECTION("that was destroyed in a callback") {
    auto pool = std::make_unique<process_pool<>>(2);
    const gate go;
    auto gone = pool->apply_async(twice, 4).then([&](int) {
      go.pass();
      pool.reset();
    });
    go.open();
    gone.get();
  }
  SECTION("whose futures were dropped") {
    process_pool pool{2};
    for (int i = 0; i != 100; ++i) pool.apply_async([](std::string text) { return text; }, std::string(100'000, 'x'));
    for (int i = 0; i != 10; ++i) {
      auto lazy = pool.imap(twice, std::views::iota(0));
      lazy.next();
    }
  }
}

TEST_CASE("a future or a lazy range that outlives its pool keeps nothing of it", "[resources]") {
  std::optional<lazy_results<int>> lazy;
  future<std::vector<int>> result;
  shared_array<int> array;
  resources_unchanged guard;
  {
    process_pool pool{2};
    lazy.emplace(pool.imap(twice, std::views::iota(0)));
    result = pool.map_async(twice, std::views::iota(0, 10));
    array = pool.apply([] { return make_shared_array<int>(10); });
  }
  CHECK(array.size() == 10);
  array = {};
  guard.check();
  CHECK(lazy->next() == 0);
  CHECK(result.get().size() == 10);
}

TEST_CASE("a thousand crashes leak nothing", "[resources][crash]") {
  resources_unchanged guard;
  process_pool pool{4};
  const auto crash = [&](int count) {
    const auto outcomes = pool.try_map([](int) { return ::raise(SIGKILL); }, std::views::iota(0, count), 10);
    CHECK(std::ranges::none_of(outcomes, [](const auto& each) { return each.has_value(); }));
    pool.broadcast([] {});
  };
  crash(20);
  const resources before = resources::now();
  crash(1000);
  resources after;
  CHECK(eventually([&] {
    after = resources::now();
    return after.held.size() == before.held.size();
  }));
  CHECK(after.held.size() == before.held.size());
  CHECK(pool.stats().workers_crashed == 1020);
}

TEST_CASE("a hundred pools one after the other leak nothing", "[resources]") {
  resources_unchanged guard;
  const auto mappings = [] {
    std::ifstream maps("/proc/self/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);) ++count;
    return count;
  };
  const auto run = [&](int count) {
    for (int i = 0; i != count; ++i) {
      process_pool pool{2};
      CHECK(pool.apply(twice, i) == 2 * i);
      if (i % 10 == 3) pool.terminate();
    }
  };
  run(10);
  const std::size_t before = mappings();
  run(100);
  CHECK(mappings() <= before + 10);  // the heap's own may vary
}
