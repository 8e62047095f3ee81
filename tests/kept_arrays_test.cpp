// SPDX-License-Identifier: BSL-1.0
// Shared arrays that workers keep from element to element: sent once, and let go with the parent's last handle.
#include <procpool/shared_array.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/hardened.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"

using namespace procpool;
using namespace support;

namespace {

/// The mappings and descriptors of shared arrays in a process.
std::size_t arrays_in(pid_t pid) {
  const std::string of = "/proc/" + std::to_string(pid);
  std::size_t count = 0;
  std::ifstream maps(of + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:procpool-array") != std::string::npos) ++count;
  }
  for (const std::string& name : names_in(of + "/fd")) {
    std::array<char, 256> target{};
    const ssize_t size = ::readlink((of + "/fd/" + name).c_str(), target.data(), target.size() - 1);
    if (size > 0 && std::string(target.data()).find("memfd:procpool-array") != std::string::npos) ++count;
  }
  return count;
}

std::vector<pid_t> workers_of(const process_pool<>& pool) {
  std::vector<pid_t> pids;
  for (const auto& each : pool.stats().workers) {
    if (each.alive) pids.push_back(each.pid);
  }
  return pids;
}

std::size_t arrays_in_workers(const process_pool<>& pool) {
  std::size_t count = 0;
  for (const pid_t pid : workers_of(pool)) count += arrays_in(pid);
  return count;
}

/// While a worker keeps an array it has it mapped, and its descriptor.
constexpr std::size_t mapping_and_descriptor = 2;

int first_of(shared_array<int> in) { return in[0]; }
shared_array<int> one_of(int value) {
  auto made = make_shared_array<int>(1);
  made[0] = value;
  return made;
}
std::uintptr_t address_of(shared_array<int> in) { return reinterpret_cast<std::uintptr_t>(in.data()); }

}  // namespace

TEST_CASE("an array is mapped once for a thousand calls, and given back when the handle goes", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{1};
  std::set<std::uintptr_t> addresses;
  {
    const auto array = pool.make_shared_array<int>(1000);
    for (int i = 0; i != 1000; ++i) {
      array[0] = i;
      REQUIRE(pool.apply(first_of, array) == i);
      if (i % 100 == 0) {
        addresses.insert(pool.apply(address_of, array));
        CHECK(arrays_in_workers(pool) == mapping_and_descriptor);
      }
    }
    CHECK(addresses.size() == 1);
  }
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));  // nothing else happens: the worker is idle
  CHECK(pool.apply([] { return 7; }) == 7);
}

TEST_CASE("idle workers give an array back, and keep the others", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{3};
  auto gone = pool.make_shared_array<int>(100);
  const auto stays = pool.make_shared_array<int>(100);
  pool.broadcast([](shared_array<int> a, shared_array<int> b) { a[0] = b[0] = 5; }, gone, stays);
  CHECK(arrays_in_workers(pool) == 3 * 2 * mapping_and_descriptor);
  gone = {};
  CHECK(eventually([&] { return arrays_in_workers(pool) == 3 * mapping_and_descriptor; }));
  CHECK(pool.apply(first_of, stays) == 5);
}

TEST_CASE("a busy worker gives an array back when its task is through, before it runs the next one", "[kept_arrays]") {
  resources_unchanged guard;
  gate started, go;
  process_pool pool{1};
  auto array = pool.make_shared_array<int>(100);
  pool.apply(first_of, array);
  auto task = pool.apply_async([started = started.in_task(), go = go.in_task()] {
    started.open();
    go.pass();
  });
  started.pass();
  array = {};
  auto next = pool.apply_async([] { return arrays_in(::getpid()); });
  CHECK(arrays_in_workers(pool) == mapping_and_descriptor);
  go.open();
  CHECK(next.get() == 0);
  task.get();
}

TEST_CASE("a task keeps the array that it works on, whatever becomes of the parent's handle", "[kept_arrays]") {
  resources_unchanged guard;
  gate started, go;
  process_pool pool{1};
  auto array = pool.make_shared_array<int>(100);
  array[9] = 9;
  auto task = pool.apply_async(
      [started = started.in_task(), go = go.in_task()](shared_array<int> in) {
        started.open();
        go.pass();
        return in[9];
      },
      array);
  started.pass();
  array = {};
  go.open();
  CHECK(task.get() == 9);
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

namespace {
struct adds {
  std::string text;  // so that it is decoded once for a chunk, and kept
  shared_array<int> to;
  void operator()(int by) const { std::atomic_ref<int>(to[0]) += by; }
};
}  // namespace

TEST_CASE("an idle worker gives back what the callable of its last chunk held", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{2};
  {
    const auto sum = pool.make_shared_array<int>(1);
    pool.map(adds{"a", sum}, std::vector<int>(100, 1));
    CHECK(sum[0] == 100);
  }
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

TEST_CASE("more arrays than a worker keeps", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{2};
  std::vector<shared_array<int>> arrays;
  for (int i = 0; i != 5 * static_cast<int>(detail::most_kept_arrays); ++i) {
    arrays.push_back(pool.make_shared_array<int>(1));
    arrays.back()[0] = i;
  }
  for (int round = 0; round != 3; ++round) {
    for (std::size_t i = 0; i != arrays.size(); ++i) REQUIRE(pool.apply(first_of, arrays[i]) == static_cast<int>(i));
    const std::vector<int> firsts = pool.map(first_of, arrays, GENERATE(std::size_t{0}, std::size_t{1}));
    for (std::size_t i = 0; i != arrays.size(); ++i) REQUIRE(firsts[i] == static_cast<int>(i));
    const std::vector<int> all = pool.map(
        [](std::vector<shared_array<int>> in) {
          return std::accumulate(in.begin(), in.end(), 0, [](int sum, const auto& each) { return sum + each[0]; });
        },
        std::vector(20, arrays));
    const int wanted = static_cast<int>(arrays.size() * (arrays.size() - 1) / 2);
    CHECK(std::ranges::count(all, wanted) == 20);
    pool.broadcast([] {});
    CHECK(arrays_in_workers(pool) <= 2 * detail::most_kept_arrays * mapping_and_descriptor);
  }
  arrays.clear();
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

TEST_CASE("an idle worker gives back what it was sent for calls that were cancelled", "[kept_arrays]") {
  resources_unchanged guard;
  gate started, go;
  process_pool pool{1};
  auto task = pool.apply_async([started = started.in_task(), go = go.in_task()] {
    started.open();
    go.pass();
  });
  started.pass();
  {
    std::vector<future<int>> waiting;  // with more than goes into a socket
    for (int i = 0; i != 600; ++i) waiting.push_back(pool.apply_async(first_of, pool.make_shared_array<int>(1)));
    for (auto& each : waiting) each.cancel();
  }
  go.open();
  task.get();
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

TEST_CASE("a worker that replaces another is sent what that one kept", "[kept_arrays][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  {
    const auto array = pool.make_shared_array<int>(10);
    for (int round = 0; round != 5; ++round) {
      array[0] = round;
      CHECK(pool.apply(first_of, array) == round);
      CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
      CHECK(pool.apply(first_of, array) == round);
    }
    CHECK(arrays_in_workers(pool) == mapping_and_descriptor);
  }
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

TEST_CASE("workers that retire, and those that replace them, keep nothing in the end", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 2, .max_tasks_per_child = 3}};
  {
    const auto array = pool.make_shared_array<int>(1);
    const auto count = [](shared_array<int> to, int by) { std::atomic_ref<int>(to[0]) += by; };
    for (int i = 0; i != 50; ++i) pool.apply(count, array, 1);
    pool.broadcast(count, array, 10);
    CHECK(array[0] == 70);
  }
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

TEST_CASE("arrays that come and go leave nothing in the workers", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{2};
  for (int i = 0; i != 1000; ++i) {
    const auto array = pool.make_shared_array<int>(10);
    array[0] = i;
    REQUIRE(pool.apply(first_of, array) == i);
  }
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

TEST_CASE("a worker that is about to fall asleep lets go as well", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{1};
  for (int i = 0; i != 300; ++i) {
    {
      const auto array = pool.make_shared_array<int>(10);
      pool.apply(first_of, array);
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(i);
      while (std::chrono::steady_clock::now() < until) {
      }
    }
    REQUIRE(eventually([&] { return arrays_in_workers(pool) == 0; }));
  }
}

TEST_CASE("arrays that go in all threads at once, while their like are sent", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{3};
  std::atomic<int> wrong{0};
  {
    const auto common = pool.make_shared_array<int>(1);
    std::vector<std::jthread> threads;
    for (int t = 0; t != 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i != 200; ++i) {
          auto mine = make_shared_array<int>(1);
          mine[0] = 1000 * t + i;
          const auto back = pool.apply(
              [](shared_array<int> in, shared_array<int> sum) {
                std::atomic_ref<int>(sum[0]) += 1;
                return std::pair(in[0], one_of(in[0]));
              },
              mine, common);
          if (back.first != mine[0] || back.second[0] != mine[0]) ++wrong;
          auto again = pool.map_async(first_of, std::vector{mine, back.second, mine});
          mine = {};
          if (again.get() != std::vector(3, 1000 * t + i)) ++wrong;
        }
      });
    }
    threads.clear();
    CHECK(wrong == 0);
    CHECK(common[0] == 800);
  }
  CHECK(eventually([&] { return arrays_in_workers(pool) == 0; }));
}

TEST_CASE("an array that outlives its pools tells nobody of its end", "[kept_arrays]") {
  resources_unchanged guard;
  auto array = make_shared_array<int>(10);
  for (int round = 0; round != 3; ++round) {
    process_pool pool{2};
    array[0] = round;
    CHECK(pool.apply(first_of, array) == round);
    process_pool killed{2};
    CHECK(killed.apply(first_of, array) == round);
    killed.terminate();
  }
  array = {};
}

namespace {
shared_array<int> of_the_program;
}

TEST_CASE("a handle that goes in another process than it was sent from tells nobody", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool sender{1};
  of_the_program = make_shared_array<int>(10);
  of_the_program[0] = 4;
  CHECK(sender.apply(first_of, of_the_program) == 4);
  {
    process_pool other{1};  // its worker has a copy of all that this process knows of the sender's
    CHECK(other.apply([] {
      of_the_program = {};
      return 3;
    }) == 3);
  }
  const pid_t child = ::fork();
  if (child == 0) {
    of_the_program = {};
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(arrays_in_workers(sender) == mapping_and_descriptor);
  CHECK(sender.apply(first_of, of_the_program) == 4);
  of_the_program = {};
  CHECK(eventually([&] { return arrays_in_workers(sender) == 0; }));
}

// UBSan itself needs descriptors, and takes objects for broken where it finds none.
#if defined(__SANITIZE_ADDRESS__)
#define PROCPOOL_TEST_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PROCPOOL_TEST_SANITIZED
#endif
#endif
#ifndef PROCPOOL_TEST_SANITIZED
TEST_CASE("an array that a worker had no descriptor for is sent again", "[kept_arrays]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto known = pool.make_shared_array<int>(1);
  known[0] = 1;
  CHECK(pool.apply(first_of, known) == 1);
  const auto allow_descriptors = [](rlim_t most) {
    struct rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = most == 0 ? limit.rlim_max : most;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  };
  pool.apply(allow_descriptors, rlim_t{3});
  const auto array = pool.make_shared_array<int>(1);
  array[0] = 2;
  CHECK_THROWS_AS(pool.apply(first_of, array), serialization_error);
  CHECK(pool.apply(first_of, known) == 1);
  pool.apply(allow_descriptors, rlim_t{0});
  CHECK(pool.apply(first_of, array) == 2);
  CHECK(pool.apply(first_of, known) == 1);
  CHECK(arrays_in_workers(pool) == 2 * mapping_and_descriptor);
}
#endif

TEST_CASE("where the address space is limited, what a worker keeps takes none of it", "[kept_arrays][hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 1, .initializer = hardened({.address_space = std::size_t{600} << 20})}};
  std::vector<shared_array<char>> arrays;
  for (int i = 0; i != 5; ++i) arrays.push_back(pool.make_shared_array<char>(std::size_t{400} << 20));
  for (int round = 0; round != 2; ++round) {
    for (const auto& array : arrays) {
      CHECK(pool.apply([](shared_array<char> in) { return in[0]; }, array) == 0);
      CHECK(pool.apply([] { return std::make_unique_for_overwrite<char[]>(std::size_t{400} << 20) != nullptr; }));
    }
  }
  CHECK(arrays_in_workers(pool) == arrays.size());  // descriptors
}
