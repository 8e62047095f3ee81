// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/detail/scheduler/busy_workers.hpp>
#include <procpool/detail/scheduler/worker_set.hpp>

using procpool::detail::busy_workers;
using procpool::detail::worker_set;

namespace {

using numbers = std::vector<std::size_t>;

worker_set set_of(const numbers& all) {
  worker_set set;
  for (const std::size_t i : all) set.insert(i);
  return set;
}

template <class Set>
numbers visited(const Set& set) {
  numbers all;
  set.for_each([&](std::size_t i) { all.push_back(i); });
  return all;
}

}  // namespace

TEST_CASE("a set of workers holds what was inserted, and nothing else", "[worker_set]") {
  const numbers inserted = GENERATE(numbers{}, numbers{0}, numbers{5, 17}, numbers{63}, numbers{64}, numbers{65},
                                    numbers{63, 64, 65}, numbers{127}, numbers{128}, numbers{1000}, numbers{3, 1000});
  CAPTURE(inserted);
  const worker_set set = set_of(inserted);
  CHECK(visited(set) == inserted);
  numbers contained;
  for (std::size_t i = 0; i != 2000; ++i) {
    if (set.contains(i)) contained.push_back(i);
  }
  CHECK(contained == inserted);
}

TEST_CASE("the workers of a set are visited in ascending order, however they came", "[worker_set]") {
  CHECK(visited(set_of({1000, 64, 0, 65, 63, 999, 1})) == numbers{0, 1, 63, 64, 65, 999, 1000});
}

TEST_CASE("a worker that is inserted twice is visited once", "[worker_set]") {
  CHECK(visited(set_of({7, 64, 7, 1000, 64, 1000})) == numbers{7, 64, 1000});
}

TEST_CASE("a set that was cleared is empty, and can be filled again", "[worker_set]") {
  const numbers before{0, 63, 64, 1000};
  worker_set set = set_of(before);
  set.clear();
  CHECK(visited(set).empty());
  for (const std::size_t i : before) CHECK_FALSE(set.contains(i));
  set.insert(65);
  CHECK(visited(set) == numbers{65});
}

TEST_CASE("a set of workers counts them, and loses those that a predicate holds for", "[worker_set]") {
  worker_set set;
  CHECK(set.empty());
  CHECK(set.size() == 0);
  for (const std::size_t i : {0u, 5u, 63u, 64u, 200u}) set.insert(i);
  CHECK(set.size() == 5);
  set.erase_if([](std::size_t i) { return i % 2 == 0; });
  CHECK(set.size() == 2);
  CHECK(set.contains(5));
  CHECK(set.contains(63));
  set.erase_if([](std::size_t) { return true; });
  CHECK(set.empty());
}

TEST_CASE("workers are busy from when they are inserted to when they are erased", "[worker_set]") {
  for (const std::size_t workers : {1U, 63U, 64U, 65U, 200U}) {
    CAPTURE(workers);
    busy_workers busy(workers);
    CHECK(visited(busy).empty());
    numbers all;
    for (std::size_t i = 0; i != workers; ++i) {
      busy.insert(i);
      all.push_back(i);
    }
    busy.insert(workers / 2);
    CHECK(visited(busy) == all);
    for (std::size_t i = 0; i + 1 != workers; ++i) busy.erase(i);
    CHECK(visited(busy) == numbers{workers - 1});
    busy.erase(workers - 1);
    CHECK(visited(busy).empty());
  }
}
