// SPDX-License-Identifier: BSL-1.0
#include <procpool/submitter.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/tasks.hpp"

using namespace procpool;
using namespace support;
using namespace std::string_literals;

TEMPLATE_TEST_CASE("apply calls anything that can be invoked", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  int offset = 10;
  CHECK(pool.apply(square, 3) == 9);
  CHECK(pool.apply(&square, 3) == 9);
  CHECK(pool.apply([] { return "text"s; }) == "text");
  CHECK(pool.apply([offset](int x) { return x + offset; }, 1) == 11);
  CHECK(pool.apply(std::plus<>{}, 1, 2) == 3);
  CHECK(pool.apply(&person::name, person{"Ann", 3}) == "Ann");
  CHECK(pool.apply(&person::years_to, person{"Ann", 3}, 10) == 7);
  CHECK(pool.apply(scale{3, "m"}, 5) == "15m");
  CHECK(pool.apply([](std::string_view text) { return text.size(); }, "four") == 4);
  CHECK(pool.apply([](std::unique_ptr<int> p) { return *p; }, std::make_unique<int>(5)) == 5);
  CHECK(pool.apply([](const std::vector<std::string>& v) { return v.size(); }, std::vector{"a"s, "b"s}) == 2);
  STATIC_REQUIRE(std::is_void_v<decltype(pool.apply([] {}))>);
  STATIC_REQUIRE(std::is_same_v<decltype(pool.apply([]() -> const int& { throw 1; })), int>);
  pool.apply([] {});
}

namespace {

/// A callable of `N` bytes.
template <std::size_t N>
struct labelled {
  std::array<char, N> label;

  template <class T>
  std::string operator()(const T& in) const {
    const bool aligned = reinterpret_cast<std::uintptr_t>(&in) % alignof(T) == 0;
    return std::string(label.data(), N) + std::to_string(in.value) + (aligned ? "" : " at an odd address");
  }
};

template <std::size_t Alignment>
struct alignas(Alignment) aligned_value {
  int value;
};

template <std::size_t N, class Pool>
void call_with_every_alignment(Pool& pool) {
  labelled<N> fn;
  fn.label.fill('x');
  const std::string label(N, 'x');
  CHECK(pool.apply(fn, aligned_value<4>{1}) == label + "1");
  CHECK(pool.apply(fn, aligned_value<8>{2}) == label + "2");
  CHECK(pool.apply(fn, aligned_value<16>{3}) == label + "3");
  CHECK(pool.apply(fn, aligned_value<64>{4}) == label + "4");
  CHECK(pool.map(fn, std::vector<aligned_value<64>>{{5}, {6}}) == std::vector{label + "5", label + "6"});
}

}  // namespace

TEMPLATE_TEST_CASE("callables of any size are called with arguments of any alignment", "[submitter]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  call_with_every_alignment<1>(pool);
  call_with_every_alignment<13>(pool);
  call_with_every_alignment<24>(pool);
  call_with_every_alignment<61>(pool);
  call_with_every_alignment<1000>(pool);
}

TEMPLATE_TEST_CASE("apply throws what the task threw", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  CHECK_THROWS_AS(pool.apply(fail_at_odd, 1), std::out_of_range);
  CHECK_THROWS_WITH(pool.apply(fail_at_odd, 3), "odd 3");
  CHECK_THROWS_AS(pool.apply([] { throw 5; }), remote_error);
  CHECK(pool.apply(fail_at_odd, 2) == 2);
}

TEMPLATE_TEST_CASE("what cannot be encoded is thrown by apply at the call", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  const auto value = [](const fussy& f) { return f.value; };
  CHECK(pool.apply(value, fussy{1}) == 1);
  CHECK_THROWS_AS(pool.apply(value, fussy{-1}), serialization_error);
  CHECK_THROWS_AS(pool.apply_async(value, fussy{-1}), serialization_error);
  CHECK(pool.stats().tasks_submitted == 1);
}

TEMPLATE_TEST_CASE("what cannot be decoded, or returned, is a serialization_error of the task", "[submitter]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  CHECK_THROWS_AS(pool.apply([](const fussy& f) { return f.value; }, fussy{1000}), serialization_error);
  CHECK_THROWS_AS(pool.apply([](int x) { return fussy{x}; }, -1), serialization_error);
  CHECK_THROWS_AS(pool.apply([](int x) { return fussy{x}; }, 1000), serialization_error);
  CHECK(pool.apply([](int x) { return fussy{x}; }, 2).value == 2);
}

TEMPLATE_TEST_CASE("a closure that holds an address of the caller's stack is refused when it is submitted",
                   "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{1};
  int local = 1;
  const auto refers = [&local](int x) { return x + local; };
  const std::vector<int> in{1};
  CHECK_THROWS_AS(pool.apply(refers, 1), std::invalid_argument);
  CHECK_THROWS_AS(pool.map(refers, in), std::invalid_argument);
  CHECK_THROWS_AS(pool.imap(refers, in), std::invalid_argument);
  CHECK_THROWS_AS(pool.broadcast(refers, 1), std::invalid_argument);
  CHECK_THROWS_AS(pool.transform_reduce(in, 0, std::plus<>{}, refers), std::invalid_argument);
  CHECK(pool.stats().tasks_submitted == 0);
}

TEMPLATE_TEST_CASE("apply_async gives a future", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  future<int> later = pool.apply_async(square, 4);
  future<void> nothing = pool.apply_async([] {});
  auto failing = pool.apply_async(fail_at_odd, 1);
  CHECK(later.get() == 16);
  CHECK_FALSE(later.valid());
  CHECK_THROWS_AS(later.get(), std::future_error);
  nothing.get();
  failing.wait();
  CHECK_FALSE(failing.successful());
  CHECK_THROWS_AS(failing.get(), std::out_of_range);
}

TEMPLATE_TEST_CASE("map gives the results in input order, of zero, one and many", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  const auto chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{100000});
  CHECK(pool.map(square, std::vector<int>{}, chunksize).empty());
  CHECK(pool.stats().tasks_submitted == 0);
  CHECK(pool.map(square, std::vector{5}, chunksize) == std::vector{25});
  std::vector<int> in(1000);
  std::iota(in.begin(), in.end(), 0);
  std::vector<int> expected;
  for (int i : in) expected.push_back(i * i);
  CHECK(pool.map(square, in, chunksize) == expected);
  CHECK(pool.map_async(square, in, chunksize).get() == expected);
}

TEMPLATE_TEST_CASE("map takes any input range", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  const std::vector expected{1, 4, 9};
  CHECK(pool.map(square, std::list{1, 2, 3}) == expected);
  const std::array constant{1, 2, 3};
  CHECK(pool.map(square, constant) == expected);
  int raw[]{1, 2, 3};
  CHECK(pool.map(square, raw) == expected);
  CHECK(pool.map(square, std::views::iota(1, 4)) == expected);
  std::istringstream text("1 2 3");
  CHECK(pool.map(square, std::ranges::istream_view<int>(text)) == expected);  // single-pass, size unknown
  CHECK(pool.map(square, std::views::iota(1) | std::views::take_while([](int i) { return i < 4; })) == expected);
  auto filtered = std::views::iota(1, 7) | std::views::filter([](int i) { return i < 4; });  // not const-iterable
  CHECK(pool.map(square, filtered) == expected);
  CHECK(pool.map([](bool b) { return !b; }, std::vector<bool>{true, false, true}) ==
        std::vector<bool>{false, true, false});
  auto owners = std::views::iota(1, 4) | std::views::transform([](int i) { return std::make_unique<int>(i); });
  CHECK(pool.map([](std::unique_ptr<int> p) { return *p * *p; }, owners) == expected);
  CHECK(pool.map([](std::unique_ptr<int> p) { return std::make_unique<int>(*p + 1); }, owners).at(2).operator*() == 4);
  CHECK(pool.map(&person::name, std::vector<person>{{"Ann", 1}, {"Bob", 2}}) == std::vector{"Ann"s, "Bob"s});
  CHECK(pool.map([](std::string_view s) { return s.size(); }, std::vector<const char*>{"a", "bc"}) ==
        std::vector<std::size_t>{1, 2});
  CHECK(pool.map([](std::string_view s) { return s.size(); }, std::vector<std::string_view>{"a", "bc"}) ==
        std::vector<std::size_t>{1, 2});
  std::vector<std::unique_ptr<int>> kept;
  kept.push_back(std::make_unique<int>(3));
  CHECK(pool.map([](std::unique_ptr<int> p) { return *p; }, kept) == std::vector{3});
  REQUIRE(kept[0]);  // the caller's elements stay
  CHECK(*kept[0] == 3);
  std::map<std::string, int> ages{{"Ann", 1}, {"Bob", 2}};
  CHECK(pool.map([](const std::pair<const std::string, int>& p) { return p.second; }, ages) == std::vector{1, 2});
  CHECK(pool.map(square, ages | std::views::values) == std::vector{1, 4});
}

TEMPLATE_TEST_CASE("map of a range whose size is unknown keeps the order however long it is", "[submitter]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{3};
  auto odd = std::views::iota(0, 5000) | std::views::filter([](int i) { return i % 2 == 1; });
  const std::vector<int> values = pool.map([](int i) { return i; }, odd);
  CHECK(std::ranges::equal(values, odd));
}

TEMPLATE_TEST_CASE("map returns results that are neither copyable nor default-constructible", "[submitter]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  const auto tokens = pool.map([](int i) { return token(i); }, std::views::iota(0, 50));
  REQUIRE(tokens.size() == 50);
  for (int i = 0; i != 50; ++i) CHECK(tokens[static_cast<std::size_t>(i)].value() == i);
  CHECK(pool.map([](const token& t) { return t.value(); }, tokens).at(49) == 49);
  CHECK(pool.apply([] { return token(7); }).value() == 7);
}

TEMPLATE_TEST_CASE("map of a void task returns nothing", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  STATIC_REQUIRE(std::is_void_v<decltype(pool.map([](int) {}, std::vector{1}))>);
  STATIC_REQUIRE(std::is_same_v<decltype(pool.map_async([](int) {}, std::vector{1})), future<void>>);
  pool.map([](int) {}, std::vector{1, 2});
  pool.map([](int) {}, std::vector<int>{});
  CHECK_THROWS_AS(pool.map([](int i) { fail_at_odd(i); }, std::vector{1, 2}), std::out_of_range);
}

TEMPLATE_TEST_CASE("map throws the error of the first failing element in input order", "[submitter]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  const auto chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{3});
  CHECK_THROWS_WITH(pool.map(fail_at_odd, std::vector{0, 2, 5, 4, 3, 1}, chunksize), "odd 5");
  auto later = pool.map_async(fail_at_odd, std::vector{0, 2, 5, 4, 3, 1}, chunksize);
  CHECK_THROWS_WITH(later.get(), "odd 5");
  CHECK(pool.map(fail_at_odd, std::vector{0, 2}) == std::vector{0, 2});
}

TEST_CASE("map does not run the elements behind a failed one; try_map does", "[submitter]") {
  static std::vector<int> ran;
  ran.clear();
  process_pool<in_process> pool;
  const auto note = [](int i) {
    ran.push_back(i);
    return fail_at_odd(i);
  };
  CHECK_THROWS_AS(pool.map(note, std::vector{0, 1, 2, 3}), std::out_of_range);
  CHECK(ran == std::vector{0, 1});
  const pool_stats stats = pool.stats();
  CHECK(stats.tasks_submitted == 4);
  CHECK(stats.tasks_completed == 1);
  CHECK(stats.tasks_failed == 3);
  ran.clear();
  CHECK(pool.try_map(note, std::vector{0, 1, 2, 3}).size() == 4);
  CHECK(ran == std::vector{0, 1, 2, 3});
}

TEMPLATE_TEST_CASE("what the input range of map throws comes out at the call, and nothing runs", "[submitter]",
                   PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  CHECK_THROWS_AS(pool.map(square, throwing_range(5, 3)), std::length_error);
  CHECK_THROWS_AS(pool.map_async(square, throwing_range(5, 3)), std::length_error);
  CHECK_THROWS_AS(pool.try_map(square, throwing_range(5, 3)), std::length_error);
  CHECK(pool.stats().tasks_submitted == 0);
}

TEMPLATE_TEST_CASE("an element that cannot be encoded is thrown by map at the call, and is its outcome in try_map",
                   "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  const auto value = [](const fussy& f) { return f.value; };
  const std::vector<fussy> in{{0}, {-1}, {2}, {-3}, {-4}, {5}};
  const auto chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{100});
  CHECK_THROWS_AS(pool.map(value, in, chunksize), serialization_error);
  CHECK_THROWS_AS(pool.map_async(value, in, chunksize), serialization_error);
  CHECK(pool.stats().tasks_submitted == 0);
  auto outcomes = pool.try_map(value, in, chunksize);
  REQUIRE(outcomes.size() == in.size());
  for (std::size_t i = 0; i != in.size(); ++i) {
    if (in[i].value < 0) {
      CHECK_THROWS_AS(outcomes[i].value(), serialization_error);
    } else {
      CHECK(outcomes[i].value() == in[i].value);
    }
  }
  CHECK(pool.stats().tasks_submitted == 3);
  CHECK(pool.try_map(value, std::vector<fussy>{{-1}}).at(0).has_error());  // all of them
}

TEMPLATE_TEST_CASE("try_map gives every element its own outcome", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  CHECK(pool.try_map(fail_at_odd, std::vector<int>{}).empty());
  const auto outcomes = pool.try_map(fail_at_odd, std::vector{0, 1, 2, 3});
  STATIC_REQUIRE(std::is_same_v<decltype(outcomes), const std::vector<outcome<int>>>);
  REQUIRE(outcomes.size() == 4);
  CHECK(outcomes[0].value() == 0);
  CHECK_THROWS_WITH(outcomes[1].value(), "odd 1");
  CHECK(outcomes[2].value() == 2);
  CHECK_THROWS_WITH(outcomes[3].value(), "odd 3");
  const auto nothing = pool.try_map([](int i) { fail_at_odd(i); }, std::vector{0, 1});
  CHECK(nothing.at(0).has_value());
  CHECK(nothing.at(1).has_error());
  const auto tokens = pool.try_map([](int i) { return token(i); }, std::vector{4});
  CHECK(tokens.at(0)->value() == 4);
}

TEMPLATE_TEST_CASE("starmap spreads tuples, pairs and arrays", "[submitter]", PROCPOOL_TRANSPORTS) {
  process_pool<TestType> pool{2};
  CHECK(pool.starmap(add, std::vector<std::pair<int, int>>{{1, 2}, {3, 4}}) == std::vector{3, 7});
  CHECK(pool.starmap(add, std::vector<std::tuple<int, int>>{{1, 2}, {3, 4}}) == std::vector{3, 7});
  CHECK(pool.starmap(add, std::vector<std::array<int, 2>>{{1, 2}, {3, 4}}) == std::vector{3, 7});
  CHECK(pool.starmap(add, std::vector<std::pair<int, int>>{}).empty());
  CHECK(pool.starmap([] { return 1; }, std::vector<std::tuple<>>(3)) == std::vector{1, 1, 1});
  CHECK(pool.starmap([](std::string a, int n) { return a + std::to_string(n); },
                     std::map<std::string, int>{{"a", 1}, {"b", 2}}) == std::vector{"a1"s, "b2"s});
  CHECK(pool.starmap_async(add, std::vector<std::pair<int, int>>{{1, 2}}).get() == std::vector{3});
  CHECK(pool.starmap(&person::years_to, std::vector<std::tuple<person, int>>{{person{"Ann", 3}, 10}}) ==
        std::vector{7});
  auto owners =
      std::views::iota(1, 3) | std::views::transform([](int i) { return std::tuple(std::make_unique<int>(i), i); });
  CHECK(pool.starmap([](std::unique_ptr<int> p, int i) { return *p + i; }, owners) == std::vector{2, 4});
  CHECK_THROWS_WITH(pool.starmap([](int a, int b) { return fail_at_odd(a + b); },
                                 std::vector<std::pair<int, int>>{{1, 1}, {1, 2}, {2, 3}}),
                    "odd 3");
  const auto outcomes = pool.try_starmap([](int a, int b) { return fail_at_odd(a + b); },
                                         std::vector<std::pair<int, int>>{{1, 1}, {1, 2}});
  CHECK(outcomes.at(0).value() == 2);
  CHECK(outcomes.at(1).has_error());
}

TEST_CASE("map settles from several workers at once, bit for bit", "[submitter]") {
  process_pool pool{4};
  for (int round = 0; round != 20; ++round) {
    const std::vector<bool> odd = pool.map([](int i) { return i % 2 == 1; }, std::views::iota(0, 2000), 3);
    REQUIRE(odd.size() == 2000);
    for (std::size_t i = 0; i != odd.size(); ++i) {
      if (odd[i] != (i % 2 == 1)) FAIL("element " << i);
    }
  }
}
