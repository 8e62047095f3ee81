// SPDX-License-Identifier: BSL-1.0
#include <procpool/this_worker.hpp>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/tasks.hpp"

using namespace procpool;

namespace {

std::size_t in_initializer = 100;

std::pair<std::size_t, std::size_t> seen_in_a_thread() {
  std::pair<std::size_t, std::size_t> seen{100, 100};
  std::thread([&] { seen = {this_worker::index(), this_worker::generation()}; }).join();
  return seen;
}

}  // namespace

TEST_CASE("outside of a worker there is no index and no generation", "[this_worker]") {
  CHECK_FALSE(this_worker::in_worker());
  CHECK_THROWS_AS(this_worker::index(), std::logic_error);
  CHECK_THROWS_AS(this_worker::generation(), std::logic_error);
}

TEMPLATE_TEST_CASE("a task is in a worker, with an index below processes()", "[this_worker]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{3, [] { in_initializer = this_worker::index() + this_worker::generation(); }};
  CHECK(pool.apply([] { return this_worker::in_worker(); }));
  CHECK(pool.apply([] { return this_worker::index(); }) < pool.processes());
  CHECK(pool.apply([] { return this_worker::generation(); }) == 0);
  CHECK(pool.apply([] { return in_initializer == this_worker::index(); }));
  CHECK_FALSE(this_worker::in_worker());
}

TEST_CASE("each worker process has an index of its own, valid in all of its threads", "[this_worker]") {
  process_pool pool{3};
  auto seen = make_shared_array<int>(pool.processes());
  struct note {
    shared_array<int> seen;
    void operator()() const {
      const auto [index, generation] = seen_in_a_thread();
      if (index == this_worker::index() && generation == 0) ++seen[index];
    }
  };
  pool.broadcast(note{seen});
  CHECK(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
}

TEMPLATE_TEST_CASE("a pool made inside a task has workers of its own", "[this_worker]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> outer{1};
  const auto [before, inside, after] = outer.apply([] {
    const std::size_t index = this_worker::index();
    process_pool<TestType> inner{1};
    const auto two_deep = inner.apply([] {
      process_pool<in_process> innermost;
      return innermost.apply([] { return this_worker::index() + this_worker::generation(); }) + this_worker::index();
    });
    return std::tuple(index, two_deep, this_worker::index());
  });
  CHECK(before == 0);
  CHECK(inside == 0);
  CHECK(after == 0);
}

TEST_CASE("a worker forked from inside an in_process task knows which worker it is", "[this_worker]") {
  process_pool<in_process> outer;
  const auto indices = outer.apply([] {
    process_pool inner{2};
    auto seen = make_shared_array<std::size_t>(2);
    struct note {
      shared_array<std::size_t> seen;
      void operator()() const { seen[this_worker::index()] = this_worker::index() + 10; }
    };
    inner.broadcast(note{seen});
    return std::vector<std::size_t>(seen.begin(), seen.end());
  });
  CHECK(indices == std::vector<std::size_t>{10, 11});
}
