// SPDX-License-Identifier: BSL-1.0
// How often the parent asks for memory, over a transport whose every step is the same each time.
#include <catch2/catch.hpp>

#include <cstddef>
#include <ranges>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/counting_malloc.hpp"
#include "support/one_thread.hpp"
#include "support/sanitizers.hpp"
#include "support/tasks.hpp"

using namespace procpool;

namespace {

/// How many allocations the parent makes in `work`, when it has been through it before. Those of the worker do not count.
template <class Work>
std::size_t allocations_of(Work work) {
  work();
  support::on_worker = [](bool begins) { support::count_allocations(!begins); };
  const std::size_t before = support::allocations();
  support::count_allocations(true);
  work();
  support::count_allocations(false);
  support::on_worker = [](bool) {};
  return support::allocations() - before;
}

std::size_t of_map(process_pool<support::one_thread>& pool, int elements, std::size_t chunksize) {
  return allocations_of([&] { pool.map(support::twice, std::views::iota(0, elements), chunksize); });
}

}  // namespace

// The bounds are what is needed now, rounded up: one allocation more for each exceeds them. Fewer is better.

TEST_CASE("map asks for memory for chunks, and not for elements", "[allocations]") {
  process_pool<support::one_thread> pool{2};
  constexpr std::size_t chunks = 8;
  constexpr std::size_t each = 4;
  CHECK(of_map(pool, 1'000, 0) <= chunks * each);
  CHECK(of_map(pool, 10'000, 0) <= chunks * each);
  // Tiny ones travel together, whatever is asked for.
  CHECK(of_map(pool, 2'000, 1) <= 2 * chunks * each);
  CHECK(of_map(pool, 20'000, 10) <= 2 * chunks * each);
}

TEST_CASE("apply, apply_async and imap ask for memory for several tasks at a time", "[allocations]") {
  process_pool<support::one_thread> pool{2};
  constexpr int tasks = 1000;
#if defined(PROCPOOL_TEST_ASAN)
  constexpr int most = 2 * tasks;  // each lies for itself (slab_allocated)
#else
  constexpr int most = tasks / 4;
#endif
  CHECK(allocations_of([&] {
          for (int i = 0; i != tasks; ++i) pool.apply(support::twice, i);
        }) <= most);
  std::vector<future<int>> futures;
  futures.reserve(tasks);
  CHECK(allocations_of([&] {
          for (int i = 0; i != tasks; ++i) futures.push_back(pool.apply_async(support::twice, i));
          for (future<int>& each : futures) each.get();
          futures.clear();
        }) <= most);
  CHECK(allocations_of([&] {
          for ([[maybe_unused]] const int each : pool.imap(support::twice, std::views::iota(0, tasks))) {
          }
        }) <= 2 * tasks);  // where they are yielded too slowly to travel together
}
