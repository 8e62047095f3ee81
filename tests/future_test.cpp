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

#include "support/pending_futures.hpp"
#include "support/processes.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using support::refuses;

static_assert(!std::is_copy_constructible_v<future<int>> && !std::is_copy_assignable_v<future<int>>);
static_assert(std::is_nothrow_move_constructible_v<future<int>> && std::is_nothrow_move_assignable_v<future<int>>);
static_assert(std::is_nothrow_default_constructible_v<future<int>>);
static_assert(std::ranges::view<procpool::completed_futures<int>>);
static_assert(std::ranges::input_range<procpool::completed_futures<int>>);
static_assert(!std::copyable<procpool::completed_futures<int>>);

// ---- waiting and getting -------------------------------------------------------------------------------------------

TEST_CASE("get() gives the value away and leaves the future invalid", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<std::unique_ptr<int>> task(engine);
  CHECK(task.result.valid());
  CHECK_FALSE(task.result.ready());
  task.state->set_value(std::make_unique<int>(7));
  CHECK(task.result.ready());
  CHECK(task.result.successful());
  CHECK(*task.result.get() == 7);
  CHECK_FALSE(task.result.valid());
  CHECK_FALSE(task.result.ready());
  try {
    task.result.get();
    FAIL("a second get() returned");
  } catch (const std::future_error& e) {
    CHECK(e.code() == std::future_errc::no_state);
  }
}

TEST_CASE("get() throws what the task ended in", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  future<int> failed = failed_future<int>(engine, "why");
  CHECK(failed.ready());
  CHECK_FALSE(failed.successful());
  CHECK_FALSE(failed.cancelled());
  CHECK_THROWS_WITH(failed.get(), "why");
  CHECK_FALSE(failed.valid());
}

TEST_CASE("futures of void, of types without default constructor, and errors instead of values", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  {
    pending<void> task(engine);
    task.state->set_value();
    CHECK(task.result.successful());
    task.result.get();
    CHECK_FALSE(task.result.valid());
  }
  CHECK_THROWS_WITH(failed_future<void>(engine, "void").get(), "void");
  {
    pending<fussy> task(engine);
    task.state->set_value(5);
    CHECK(task.result.get().value() == 5);
  }
  CHECK(fussy::living == 0);
  {
    future<fussy> never_got = ready_future<fussy>(engine, 6);
    CHECK(fussy::living == 1);
  }
  CHECK(fussy::living == 0);
  {
    pending<throws_when_moved> task(engine);
    CHECK(task.state->set_value(throws_when_moved{}));
    CHECK_THROWS_WITH(task.result.get(), "moved");
  }
}

TEST_CASE("the first outcome wins", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  CHECK(task.state->set_value(1));
  CHECK_FALSE(task.state->set_value(2));
  CHECK_FALSE(task.state->set_error(std::make_exception_ptr(1)));
  CHECK(task.result.get() == 1);
}

TEST_CASE("what needs a state throws no_state without one, what is noexcept says no", "[future]") {
  future<int> none;
  CHECK_FALSE(none.valid());
  CHECK_FALSE(none.ready());
  CHECK_FALSE(none.running());
  CHECK_FALSE(none.cancelled());
  CHECK_THROWS_AS(none.get(), std::future_error);
  CHECK_THROWS_AS(none.get(1ms), std::future_error);
  CHECK_THROWS_AS(none.wait(), std::future_error);
  CHECK_THROWS_AS(none.wait_for(1ms), std::future_error);
  CHECK_THROWS_AS(none.wait_until(std::chrono::system_clock::now()), std::future_error);
  CHECK_THROWS_AS(none.successful(), std::future_error);
  CHECK_THROWS_AS(none.cancel(), std::future_error);
  CHECK_THROWS_AS(std::move(none).then([](int) {}), std::future_error);
  CHECK_THROWS_AS(std::move(none).operator co_await(), std::future_error);
}

TEST_CASE("moving a future moves its state", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  future<int> other = std::move(task.result);
  CHECK_FALSE(task.result.valid());
  CHECK(other.valid());
  task.state->set_value(3);
  task.result = std::move(other);
  CHECK(task.result.get() == 3);
}

TEST_CASE("get(duration) throws timeout_error and stays valid", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  const auto start = std::chrono::steady_clock::now();
  CHECK_THROWS_AS(task.result.get(20ms), procpool::timeout_error);
  CHECK(std::chrono::steady_clock::now() - start >= 20ms);
  CHECK(task.result.valid());
  CHECK_THROWS_AS(task.result.get(0s), procpool::timeout_error);
  CHECK_THROWS_AS(task.result.get(-5h), procpool::timeout_error);
  task.state->set_value(4);
  CHECK(task.result.get(0s) == 4);
  CHECK_FALSE(task.result.valid());
}

TEST_CASE("wait_for and wait_until say whether it is ready, whatever the duration and the clock", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  const future<int>& constant = task.result;
  CHECK(constant.wait_for(0s) == std::future_status::timeout);
  CHECK(constant.wait_for(-1h) == std::future_status::timeout);
  CHECK(constant.wait_for(std::chrono::nanoseconds::min()) == std::future_status::timeout);
  CHECK(constant.wait_for(1.5ms) == std::future_status::timeout);
  CHECK(constant.wait_until(std::chrono::system_clock::now() + 2ms) == std::future_status::timeout);
  CHECK(constant.wait_until(std::chrono::steady_clock::now() + 2ms) == std::future_status::timeout);
  CHECK(constant.wait_until(std::chrono::high_resolution_clock::now() - 1h) == std::future_status::timeout);
  std::thread settler([&, waiting = ::gettid()] {
    support::await_sleep(waiting);
    task.state->set_value(1);
  });
  CHECK(constant.wait_for(std::chrono::hours::max()) == std::future_status::ready);
  settler.join();
  CHECK(constant.wait_for(std::chrono::nanoseconds::max()) == std::future_status::ready);
  CHECK(constant.wait_until(std::chrono::system_clock::time_point::max()) == std::future_status::ready);
  CHECK(constant.wait_until(std::chrono::steady_clock::time_point::min()) == std::future_status::ready);
  constant.wait();
}

TEST_CASE("successful() is a logic_error before the task has ended", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  CHECK_THROWS_AS(task.result.successful(), std::logic_error);
  task.state->set_value(1);
  CHECK(task.result.successful());
}

TEST_CASE("a waiting thread helps the engine, then sleeps, and wakes when the result is set", "[future]") {
  const auto engine = std::make_shared<fake_engine>();
  for (int round = 0; round != 200; ++round) {
    pending<int> task(engine);
    std::thread settler([&, round, waiting = ::gettid()] {
      if (round % 4 == 0) support::await_sleep(waiting);
      task.state->set_value(round);
    });
    std::thread other([&] { task.result.wait(); });
    task.result.wait();
    other.join();
    CHECK(task.result.get() == round);
    settler.join();
  }
  CHECK(engine->helped > 0);
}

TEST_CASE("a future outlives its pool, and dropping one neither waits nor cancels", "[future]") {
  std::optional<future<int>> result;
  {
    auto engine = std::make_shared<fake_engine>();
    result = ready_future<int>(engine, 9);
    engine->close();
    engine->join();
  }
  CHECK(result->get() == 9);

  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  task.result = {};
  CHECK_FALSE(task.state->ready());
  CHECK(task.state->set_value(1));
}

// ---- cancelling ----------------------------------------------------------------------------------------------------

TEST_CASE("cancel() ends what has not ended, once", "[future][cancel]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  CHECK_FALSE(task.result.cancelled());
  CHECK(task.result.cancel());
  CHECK(task.result.cancelled());
  CHECK(task.result.ready());
  CHECK_FALSE(task.result.successful());
  CHECK_FALSE(task.result.cancel());
  CHECK_FALSE(task.state->set_value(1));
  CHECK_THROWS_AS(task.result.get(), procpool::task_cancelled);

  future<int> done = ready_future<int>(engine, 1);
  CHECK_FALSE(done.cancel());
  CHECK_FALSE(done.cancelled());
  CHECK(done.get() == 1);
}

TEST_CASE("a then() that is cancelled before its callback starts never runs it", "[future][cancel][then]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  std::atomic<int> calls{0};
  auto token = std::make_shared<int>(0);
  future<int> next = std::move(task.result).then([&calls, token](int) { return ++calls; });
  CHECK_FALSE(next.running());
  CHECK(next.cancel());
  task.state->set_value(1);
  engine->callbacks().drain_and_stop();
  CHECK(calls == 0);
  CHECK(token.use_count() == 1);
  CHECK_THROWS_AS(next.get(), procpool::task_cancelled);
}

TEST_CASE("a callback that runs cannot be cancelled", "[future][cancel][then]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  std::promise<void> started;
  std::promise<void> go;
  future<int> next = std::move(task.result).then([&](int x) {
    started.set_value();
    go.get_future().wait();
    return x + 1;
  });
  task.state->set_value(1);
  started.get_future().wait();
  CHECK(next.running());
  CHECK_FALSE(next.cancel());
  go.set_value();
  CHECK(next.get() == 2);
}

// ---- another process -----------------------------------------------------------------------------------------------

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("in another process a future refuses, at once, and does nothing when destroyed", "[future][fork]") {
  const auto engine = std::make_shared<fake_engine>();
  auto unfinished = std::make_unique<pending<int>>(engine);
  auto finished = std::make_unique<future<int>>(ready_future<int>(engine, 1));
  auto completed = std::make_unique<procpool::completed_futures<int>>(as_completed([&] {
    std::vector<future<int>> one;
    one.push_back(ready_future<int>(engine, 1));
    return one;
  }()));
  const pid_t child = ::fork();
  if (child == 0) {
    int refused = 0;
    refused += refuses([&] { unfinished->result.get(); });
    refused += refuses([&] { unfinished->result.wait(); });
    refused += refuses([&] { unfinished->result.wait_for(1ms); });
    refused += refuses([&] { unfinished->result.cancel(); });
    refused += refuses([&] { finished->get(); });
    refused += refuses([&] { static_cast<void>(std::move(*finished).then([](int) {})); });
    refused += refuses([&] { wait_any(std::span(&unfinished->result, 1)); });
    refused += refuses([&] { completed->next(); });
    unfinished.reset();
    finished.reset();
    completed.reset();
    ::_exit(refused);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 8);
  CHECK(finished->get() == 1);
}
#endif
