// SPDX-License-Identifier: BSL-1.0
#include <procpool/lazy_results.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/tasks.hpp"

using namespace procpool;
using namespace support;
using namespace std::string_literals;

TEMPLATE_TEST_CASE("imap yields lazily, in input order, also from an endless input", "[lazy_members]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  std::vector<int> seen;
  for (int y : pool.imap(square, std::views::iota(0))) {
    if (y > 100) break;
    seen.push_back(y);
  }
  CHECK(seen == std::vector{0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100});
  auto none = pool.imap(square, std::vector<int>{});
  CHECK(none.begin() == none.end());
  auto one = pool.imap(square, std::vector{3});
  CHECK(one.next() == 9);
  CHECK(one.next() == std::nullopt);
}

TEMPLATE_TEST_CASE("imap takes at most buffersize inputs ahead", "[lazy_members]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  int taken = 0;
  auto counting = std::views::iota(0) | std::views::transform([&taken](int i) {
                    ++taken;
                    return i;
                  });
  auto results = pool.with({.buffersize = 5}).imap(square, counting, GENERATE(std::size_t{1}, std::size_t{100}));
  CHECK(taken <= 5);
  for (int i = 0; i != 20; ++i) {
    CHECK(results.next() == i * i);
    CHECK(taken <= i + 1 + 5);
  }
}

TEMPLATE_TEST_CASE("imap: a failed task throws at its own element, and iteration goes on", "[lazy_members]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  std::vector<std::string> seen;
  auto results = pool.imap(fail_at_odd, std::vector{0, 1, 2});
  for (auto it = results.begin(); it != results.end(); ++it) {
    try {
      seen.push_back(std::to_string(*it));
    } catch (const std::out_of_range& e) {
      seen.push_back(e.what());
    }
  }
  CHECK(seen == std::vector{"0"s, "odd 1"s, "2"s});
}

TEMPLATE_TEST_CASE("imap: an element that cannot be encoded is thrown at its place", "[lazy_members]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  auto results = pool.imap([](const fussy& f) { return f.value; }, std::vector<fussy>{{1}, {-1}, {3}});
  CHECK(results.next() == 1);
  CHECK_THROWS_AS(results.next(), serialization_error);
  CHECK(results.next() == 3);
  CHECK(results.next() == std::nullopt);
}

TEMPLATE_TEST_CASE("imap: what the input range throws comes out in its place, then the end", "[lazy_members]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  auto results = pool.imap(square, throwing_range(5, 2));
  CHECK(results.next() == 0);
  CHECK(results.next() == 1);
  CHECK_THROWS_AS(results.next(), std::length_error);
  CHECK(results.next() == std::nullopt);
}

TEMPLATE_TEST_CASE("imap does not ask the input for more than it needs", "[lazy_members]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  std::istringstream text("1 2 3 4");
  auto results = pool.with({.buffersize = 1}).imap(square, std::ranges::istream_view<int>(text));
  CHECK(results.next() == 1);
  CHECK(results.next() == 4);
  int next = 0;
  text >> next;
  CHECK(next >= 3);
}

TEMPLATE_TEST_CASE("the other lazy members", "[lazy_members]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  std::vector<int> all;
  for (int y : pool.imap_unordered(square, std::vector{1, 2, 3}, 2)) all.push_back(y);
  std::ranges::sort(all);
  CHECK(all == std::vector{1, 4, 9});
  all.clear();
  const std::vector<std::pair<int, int>> pairs{{1, 2}, {3, 4}};
  for (int y : pool.istarmap(add, pairs)) all.push_back(y);
  CHECK(all == std::vector{3, 7});
  for (int y : pool.istarmap_unordered(add, pairs)) all.push_back(y);
  CHECK(std::accumulate(all.begin(), all.end(), 0) == 20);
  std::size_t count = 0;
  for (std::monostate nothing : pool.imap([](int) {}, std::vector{1, 2})) {
    static_cast<void>(nothing);
    ++count;
  }
  CHECK(count == 2);
  auto owning = pool.imap(square, std::vector{1, 2, 3});  // the vector is gone here: the results own it
  CHECK(owning.next() == 1);
  auto tokens = pool.imap([](int i) { return token(i); }, std::vector{1, 2});
  CHECK(tokens.next()->value() == 1);
}

TEMPLATE_TEST_CASE("a lazy range yields what it had taken before close, one pool_closed, then the end",
                   "[lazy_members]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  auto results = pool.with({.buffersize = 2}).imap(square, std::views::iota(0));
  CHECK(results.next() == 0);
  pool.close();
  int taken = 1;
  try {
    while (results.next() == taken * taken) ++taken;
  } catch (const pool_closed&) {
    taken += 100;
  }
  CHECK(taken >= 102);
  CHECK(taken <= 103);
  CHECK(results.next() == std::nullopt);
}
