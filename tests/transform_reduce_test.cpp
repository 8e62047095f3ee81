// SPDX-License-Identifier: BSL-1.0
#include <procpool/submitter.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/tasks.hpp"

using namespace procpool;
using namespace support;
using namespace std::string_literals;

TEMPLATE_TEST_CASE("transform_reduce", "[transform_reduce]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{3};
  const auto twice = [](int x) { return 2 * x; };
  CHECK(pool.transform_reduce(std::vector<int>{}, 5, std::plus<>{}, twice) == 5);
  CHECK(pool.transform_reduce(std::vector{4}, 5, std::plus<>{}, twice) == 13);
  CHECK(pool.transform_reduce(std::views::iota(0, 1001), 5, std::plus<>{}, twice) == 5 + 1001000);
  CHECK(pool.transform_reduce(std::views::iota(0, 100), 0L, add, square) == 328350L);
  std::istringstream text("1 2 3");
  CHECK(pool.transform_reduce(std::ranges::istream_view<int>(text), 0, std::plus<>{}, square) == 14);
  CHECK(pool.transform_reduce(std::vector{"a"s, "bb"s, "ccc"s}, std::size_t{1}, std::plus<>{}, &std::string::size) ==
        7);
  CHECK(pool.transform_reduce(
            std::vector{"a"s, "b"s, "c"s, "d"s, "e"s, "f"s, "g"s, "h"s, "i"s, "j"s, "k"s, "l"s, "m"s, "n"s}, ">"s,
            std::plus<>{}, [](std::string s) { return s; }) == ">abcdefghijklmn");
  CHECK(pool.transform_reduce(std::vector<const char*>{"a", "bb"}, std::size_t{0}, std::plus<>{},
                              [](std::string_view s) { return s.size(); }) == 3);
  CHECK(pool.transform_reduce(std::vector<person>{{"Ann", 3}, {"Bob", 4}}, 0, std::plus<>{}, &person::age) == 7);
  CHECK(pool.transform_reduce(std::vector<bool>{true, false, true}, 0, std::plus<>{},
                              [](bool b) { return b ? 1 : 0; }) == 2);
  int offset = 100;
  CHECK(pool.transform_reduce(
            std::vector{1, 2, 3}, 0, [offset](int a, int b) { return a + b - offset; },
            [offset](int x) { return x + offset; }) == 6);
  auto owners = std::views::iota(1, 30) | std::views::transform([](int i) { return std::make_unique<int>(i); });
  CHECK(*pool.transform_reduce(
            owners, std::make_unique<int>(0),
            [](std::unique_ptr<int> a, std::unique_ptr<int> b) {
              *a += *b;
              return a;
            },
            [](std::unique_ptr<int> p) { return p; }) == 435);
}

TEMPLATE_TEST_CASE("transform_reduce of batches of every size", "[transform_reduce]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  std::string letters;
  for (int size = 1; size != 60; ++size) {
    letters += static_cast<char>('0' + size);
    const auto text = [](char letter) { return std::string(1, letter); };
    CHECK(pool.transform_reduce(letters, ">"s, std::plus<>{}, text) == ">" + letters);
    auto array = pool.template make_shared_array<char>(letters.size());
    std::ranges::copy(letters, array.begin());
    CHECK(pool.transform_reduce(array, ">"s, std::plus<>{}, text) == ">" + letters);
  }
}

TEMPLATE_TEST_CASE("transform_reduce of a shared array sends its handle", "[transform_reduce]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  auto values = pool.template make_shared_array<int>(10000);
  std::iota(values.begin(), values.end(), 0);
  CHECK(pool.transform_reduce(values, std::int64_t{0}, std::plus<>{}, [](int x) { return std::int64_t{x}; }) ==
        49995000);
  CHECK(pool.transform_reduce(shared_array<int>(), 3, std::plus<>{}, square) == 3);
}

TEMPLATE_TEST_CASE("transform_reduce throws what failed first in input order", "[transform_reduce]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  CHECK_THROWS_WITH(pool.transform_reduce(std::views::iota(0, 50) | std::views::drop(4), 0, std::plus<>{}, fail_at_odd),
                    "odd 5");
  CHECK_THROWS_AS(pool.transform_reduce(
                      std::vector{1}, 0, [](int, int) -> int { throw std::range_error("reduce"); }, square),
                  std::range_error);
  CHECK_THROWS_AS(
      pool.transform_reduce(std::vector<fussy>{{1}, {-1}}, 0, std::plus<>{}, [](const fussy& f) { return f.value; }),
      serialization_error);
  CHECK_THROWS_AS(pool.transform_reduce(throwing_range(5, 3), 0, std::plus<>{}, square), std::length_error);
}

TEMPLATE_TEST_CASE("broadcast runs once in every worker", "[transform_reduce]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{3};
  auto counts = pool.template make_shared_array<int>(pool.processes());
  struct note {
    shared_array<int> counts;
    void operator()(int by) const { counts[this_worker::index()] += by; }
  };
  pool.broadcast(note{counts}, 2);
  for (int count : counts) CHECK(count == 2);
  CHECK(pool.stats().tasks_completed == pool.processes());
  CHECK_THROWS_WITH(pool.broadcast([] { throw std::runtime_error(std::to_string(this_worker::index())); }), "0");
}
