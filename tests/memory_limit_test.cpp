// SPDX-License-Identifier: BSL-1.0
// pool_options::max_memory_per_child.
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ranges>
#include <span>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"
#include "support/tasks.hpp"

using namespace procpool;
using namespace support;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

/// Leaks as many bytes as it is told to, all of them touched.
pid_t leak(std::size_t bytes) {
  static std::vector<void*> kept;
  kept.push_back(std::malloc(bytes));
  std::memset(kept.back(), 1, bytes);
  return ::getpid();
}

}  // namespace

TEST_CASE("a worker that has grown too large is replaced after its task", "[max_memory_per_child]") {
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 1, .max_memory_per_child = 64 * mib}};
  const pid_t first = pool.apply(leak, 1 * mib);
  CHECK(pool.apply(leak, 16 * mib) == first);
  CHECK(pool.apply(leak, 80 * mib) == first);  // its own task is not disturbed
  const pid_t second = pool.apply(own_pid);
  CHECK(second != first);
  CHECK(pool.apply(own_pid) == second);
  CHECK(eventually([&] { return pool.stats().workers_retired == 1; }));
  CHECK(pool.stats().workers_crashed == 0);
  CHECK(pool.stats().tasks_failed == 0);
}

TEST_CASE("no task runs on a worker after the one that made it too large", "[max_memory_per_child]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{1}, std::size_t{25});
  const shared_words runs(100);
  process_pool pool{pool_options{.processes = 2, .max_memory_per_child = 20 * mib}};
  struct run {
    pid_t pid;
    int number;  ///< of the element among those that its process has run
  };
  const auto done = pool.map(
      [counts = runs.in_task()](int x) {
        static int number = 0;
        ++counts[x];
        return run{x % 10 == 9 ? leak(40 * mib) : own_pid(), ++number};
      },
      std::views::iota(0, 100), chunksize);
  for (const auto& each : runs) CHECK(each == 1);
  CHECK(eventually([&] { return pool.stats().workers_retired == 10; }));
  for (std::size_t i = 9; i < 100; i += 10) {
    for (const run& each : done) CHECK((each.pid != done[i].pid || each.number <= done[i].number));
  }
}

TEST_CASE("what the initializer, arguments and results take is no growth", "[max_memory_per_child]") {
  resources_unchanged guard;
  process_pool pool{
      pool_options{.processes = 1, .initializer = [] { leak(100 * mib); }, .max_memory_per_child = 48 * mib}};
  const pid_t first = pool.apply(own_pid);
  const std::vector<double> large(10 * mib);
  CHECK(pool.apply([](std::span<const double> all) { return all.size(); }, std::span<const double>(large)) == 10 * mib);
  for (int i = 0; i != 20; ++i) CHECK(pool.apply(own_pid) == first);
  CHECK(pool.stats().workers_retired == 0);
}

TEST_CASE("the finalizer runs in a worker that has grown too large", "[max_memory_per_child]") {
  resources_unchanged guard;
  const shared_words finalized(1);
  process_pool pool{pool_options{
      .processes = 1, .finalizer = [counts = finalized.in_task()] { ++counts[0]; }, .max_memory_per_child = 8 * mib}};
  for (int i = 1; i != 4; ++i) {
    pool.apply(leak, 16 * mib);
    CHECK(eventually([&] { return finalized[0] == i; }));
  }
}
