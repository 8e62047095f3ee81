// SPDX-License-Identifier: BSL-1.0
// A thread that waits for a result sleeps where it is the first to hear of it.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

/// In a task: until whoever waits for it has fallen asleep.
int once_awaited(pid_t parent, int x) { return await_threads_asleep(parent) ? x : -1; }

/// How often threads of this process other than the calling one have fallen asleep.
std::uint64_t sleeps_of_others() {
  const std::string own = std::to_string(::gettid());
  std::uint64_t all = 0;
  for (const std::string& name : names_in("/proc/self/task")) {
    if (name == own) continue;
    std::ifstream status("/proc/self/task/" + name + "/status");
    for (std::string line; std::getline(status, line);) {
      constexpr const char* key = "voluntary_ctxt_switches:";
      if (line.starts_with(key)) all += std::stoull(line.substr(std::string(key).size()));
    }
  }
  return all;
}

}  // namespace

TEST_CASE("whoever waits for a result hears of it without another thread", "[process_pool][leader]") {
  resources_unchanged guard;
  process_pool pool{1};
  constexpr int calls = 200;
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t before = sleeps_of_others();
  for (int i = 0; i != calls; ++i) CHECK(pool.apply(once_awaited, ::getpid(), i) == i);
  const std::uint64_t slept = sleeps_of_others() - before;
  // The pool's own thread looks every 100 ms while something is awaited.
  const auto looks = static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start) / 100ms);
  CHECK(slept < calls / 2 + 2 * looks);
}

TEST_CASE("of several threads that wait each gets its result", "[process_pool][leader]") {
  resources_unchanged guard;
  process_pool pool{2};
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t != wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i != 100; ++i) {
        auto result = pool.apply_async(once_awaited, ::getpid(), i);
        if (i % 3 == 0) static_cast<void>(result.wait_for(1ms));  // as the leader, or not
        if (result.get() != i) ++wrong[t];
      }
    });
  }
  for (auto& each : threads) each.join();
  CHECK(wrong == std::vector<int>(wrong.size(), 0));
}

TEST_CASE("a death while its caller leads is that caller's to hear of", "[process_pool][leader][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  for (int i = 0; i != 20; ++i) {
    CHECK_THROWS_AS(pool.apply(
                        [](pid_t parent) {
                          once_awaited(parent, 0);
                          ::raise(SIGKILL);
                        },
                        ::getpid()),
                    worker_crashed);
  }
}

TEST_CASE("a pool ends although a thread leads that waits for no task of it", "[process_pool][leader]") {
  resources_unchanged guard;
  const gate in_callback;
  const gate go_on;
  const std::size_t descriptors = names_in("/proc/self/fd").size();
  process_pool pool{1};
  auto result = pool.apply_async([] { return 1; }).then([&](int x) {
    in_callback.open();
    go_on.pass();
    return x + 1;
  });
  int got = 0;
  std::thread waiting([&] { got = result.get(); });
  in_callback.pass();
  REQUIRE(await_threads_asleep(::getpid()));
  pool.close();
  std::thread joining([&] { pool.join(); });
  // All that the pool has is given up, but for the callback that still runs.
  CHECK(eventually([&] { return names_in("/proc/self/fd").size() == descriptors; }));
  go_on.open();
  joining.join();
  waiting.join();
  CHECK(got == 2);
}
