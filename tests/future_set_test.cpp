// SPDX-License-Identifier: BSL-1.0
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <exception>
#include <future>
#include <limits>
#include <list>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include <catch2/catch.hpp>

#include "support/pending_futures.hpp"
#include "support/processes.hpp"

using namespace std::chrono_literals;
using procpool::as_completed;
using procpool::wait_all;
using procpool::wait_any;

// ---- many futures --------------------------------------------------------------------------------------------------

TEST_CASE("as_completed yields finished ones first, then in the order of completion", "[future][as_completed]") {
  const auto engine = std::make_shared<fake_engine>();
  std::vector<pending<int>> tasks;
  for (int i = 0; i != 5; ++i) tasks.emplace_back(engine);
  tasks[3].state->set_value(3);
  tasks[1].state->set_value(1);
  std::vector<future<int>> futures;
  for (auto& each : tasks) futures.push_back(std::move(each.result));
  auto completed = as_completed(std::move(futures));
  tasks[4].state->set_value(4);
  tasks[0].state->set_error(std::make_exception_ptr(std::runtime_error("zero")));
  std::vector<int> order;
  for (future<int>& each : completed) {
    CHECK(each.ready());
    try {
      order.push_back(each.get());
    } catch (const std::runtime_error&) {
      order.push_back(0);
      tasks[2].state->set_value(2);
    }
  }
  CHECK(order == std::vector<int>{1, 3, 4, 0, 2});
  CHECK_FALSE(completed.next().has_value());
  CHECK(completed.begin() == completed.end());
}

TEST_CASE("as_completed of nothing, of a list, of a view that makes futures, and left early",
          "[future][as_completed]") {
  const auto engine = std::make_shared<fake_engine>();
  CHECK_FALSE(as_completed(std::vector<future<int>>{}).next().has_value());

  std::list<future<int>> some;
  some.push_back(ready_future<int>(engine, 1));
  some.push_back(ready_future<int>(engine, 2));
  auto from_list = as_completed(std::move(some));
  CHECK(from_list.next()->get() == 1);
  for (auto&& each : from_list) CHECK(each.get() == 2);

  int sum = 0;
  for (auto& each : as_completed(std::views::iota(0, 10) |
                                 std::views::transform([&](int i) { return ready_future<int>(engine, i); })))
    sum += each.get();
  CHECK(sum == 45);

  pending<int> never(engine);
  {
    std::vector<future<int>> one;
    one.push_back(std::move(never.result));
    one.push_back(ready_future<int>(engine, 5));
    for (auto& each : as_completed(std::move(one))) {
      CHECK(each.get() == 5);
      break;
    }
  }
  CHECK_FALSE(never.state->ready());
  never.state->set_value(1);  // must not reach for the range, which is gone
}

TEST_CASE("iterating again goes on where it was left", "[future][as_completed]") {
  const auto engine = std::make_shared<fake_engine>();
  std::vector<future<int>> futures;
  for (int i = 0; i != 4; ++i) futures.push_back(ready_future<int>(engine, i));
  auto completed = as_completed(std::move(futures));
  for (auto& each : completed) {
    CHECK(each.get() == 0);
    break;
  }
  CHECK(completed.next()->get() == 1);
  auto moved = std::move(completed);
  std::vector<int> rest;
  for (auto& each : moved) rest.push_back(each.get());
  CHECK(rest == std::vector<int>{2, 3});
}

TEST_CASE("as_completed hears of results set by other threads", "[future][as_completed]") {
  const auto engine = std::make_shared<fake_engine>();
  constexpr int count = 2000;
  std::vector<future_state_ptr<int>> states;
  std::vector<future<int>> futures;
  for (int i = 0; i != count; ++i) {
    states.push_back(new_state<int>(engine));
    futures.push_back(make_future<int>(states.back()));
  }
  std::vector<std::thread> settlers;
  for (int t = 0; t != 2; ++t) {
    settlers.emplace_back([&, t] {
      for (int i = t; i < count; i += 2) states[static_cast<std::size_t>(i)]->set_value(i);
    });
  }
  long sum = 0;
  int seen = 0;
  for (auto& each : as_completed(std::move(futures))) {
    sum += each.get();
    ++seen;
  }
  for (auto& each : settlers) each.join();
  CHECK(seen == count);
  CHECK(sum == static_cast<long>(count) * (count - 1) / 2);
}

TEST_CASE("futures of several pools can be waited for together", "[future][as_completed][wait_any]") {
  const auto one = std::make_shared<fake_engine>();
  const auto other = std::make_shared<fake_engine>();
  pending<int> first(one);
  pending<int> second(other);
  std::vector<future<int>> futures;
  futures.push_back(std::move(first.result));
  futures.push_back(std::move(second.result));
  std::thread settler([&] {
    while (one->helped == 0 || other->helped == 0) std::this_thread::yield();
    second.state->set_value(2);
  });
  CHECK(wait_any(futures) == futures.begin() + 1);  // helps both
  settler.join();
  auto completed = as_completed(std::move(futures));
  CHECK(completed.next()->get() == 2);
  first.state->set_value(1);
  CHECK(completed.next()->get() == 1);
}

TEST_CASE("wait_any returns the first to be ready, and end() for none", "[future][wait_any]") {
  const auto engine = std::make_shared<fake_engine>();
  std::vector<future<int>> none;
  CHECK(wait_any(none) == none.end());

  std::vector<pending<int>> tasks;
  for (int i = 0; i != 3; ++i) tasks.emplace_back(engine);
  std::list<future<int>> futures;
  for (auto& each : tasks) futures.push_back(std::move(each.result));
  std::thread settler([&, waiting = ::gettid()] {
    support::await_sleep(waiting);
    tasks[1].state->set_value(1);
  });
  const auto found = wait_any(futures);
  CHECK(found == std::next(futures.begin()));
  settler.join();
  CHECK(wait_any(std::as_const(futures)) == std::next(futures.cbegin()));
  CHECK(found->get() == 1);
  CHECK_THROWS_AS(wait_any(futures), std::future_error);  // one is invalid now
  futures.erase(found);
  for (auto& each : tasks) each.state->set_value(5);
  CHECK(wait_any(futures) == futures.begin());
}

TEST_CASE("wait_any leaves nothing behind in the futures it waited for", "[future][wait_any]") {
  const auto engine = std::make_shared<fake_engine>();
  std::array<pending<int>, 2> tasks{pending<int>(engine), pending<int>(engine)};
  std::array<future<int>, 2> futures{std::move(tasks[0].result), std::move(tasks[1].result)};
  tasks[0].state->set_value(1);
  for (int i = 0; i != 100; ++i) CHECK(wait_any(futures) == futures.begin());
  tasks[1].state->set_value(2);
  CHECK(futures[1].get() == 2);
}

TEST_CASE("wait_all returns when all are ready, whatever they ended in", "[future][wait_all]") {
  const auto engine = std::make_shared<fake_engine>();
  wait_all(std::vector<future<int>>{});
  std::vector<pending<int>> tasks;
  for (int i = 0; i != 3; ++i) tasks.emplace_back(engine);
  std::vector<future<int>> futures;
  for (auto& each : tasks) futures.push_back(std::move(each.result));
  std::thread settler([&] {
    tasks[2].state->set_value(1);
    tasks[0].state->set_error(std::make_exception_ptr(1));
    tasks[1].state->set_value(1);
  });
  wait_all(std::as_const(futures));
  for (const auto& each : futures) CHECK(each.ready());
  settler.join();
  wait_all(std::span(futures));
  CHECK(futures[2].get() == 1);
  CHECK_THROWS_AS(wait_all(futures), std::future_error);
}
