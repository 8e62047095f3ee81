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

#include <procpool/future.hpp>

#include "fake_engine.hpp"

using namespace std::chrono_literals;
using procpool::as_completed;
using procpool::future;
using procpool::wait_all;
using procpool::wait_any;
using procpool::detail::future_state;
using procpool::detail::future_state_ptr;
using procpool::detail::make_future;

namespace {

template <class R>
future_state_ptr<R> new_state(const std::shared_ptr<fake_engine>& engine) {
  return future_state_ptr<R>(new future_state<R>(engine));
}

// A future and the end that settles it.
template <class R>
struct pending {
  explicit pending(const std::shared_ptr<fake_engine>& engine)
      : state(new_state<R>(engine)), result(make_future<R>(state)) {}
  future_state_ptr<R> state;
  future<R> result;
};

template <class R, class V>
future<R> ready_future(const std::shared_ptr<fake_engine>& engine, V&& value) {
  auto state = new_state<R>(engine);
  state->set_value(std::forward<V>(value));
  return make_future<R>(state);
}

template <class R>
future<R> failed_future(const std::shared_ptr<fake_engine>& engine, const std::string& what) {
  auto state = new_state<R>(engine);
  state->set_error(std::make_exception_ptr(std::runtime_error(what)));
  return make_future<R>(state);
}

// No default constructor, move-only, counts its living instances.
class fussy {
 public:
  explicit fussy(int value) : value_(value) { ++living; }
  fussy(fussy&& other) noexcept : value_(other.value_) { ++living; }
  fussy& operator=(fussy&&) = delete;
  ~fussy() { --living; }
  int value() const { return value_; }
  static inline std::atomic<int> living{0};

 private:
  int value_;
};

struct throws_when_moved {
  throws_when_moved() = default;
  throws_when_moved(throws_when_moved&&) { throw std::runtime_error("moved"); }
};

// A coroutine that starts at once and cleans up after itself.
struct detached {
  struct promise_type {
    detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

// One that its holder destroys.
struct held {
  struct promise_type {
    held get_return_object() noexcept { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
  std::coroutine_handle<promise_type> handle;
};

}  // namespace

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
  std::thread settler([&] {
    std::this_thread::sleep_for(2ms);
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
    std::thread settler([&, round] {
      if (round % 4 == 0) std::this_thread::sleep_for(1ms);
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

// ---- then ----------------------------------------------------------------------------------------------------------

TEST_CASE("then() calls back on the callback thread, also when the future is ready", "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  auto inside = [&engine](int x) { return std::pair(x * 2, engine->callbacks().here()); };
  CHECK(ready_future<int>(engine, 4).then(inside).get() == std::pair(8, true));
  pending<int> task(engine);
  future<std::pair<int, bool>> next = std::move(task.result).then(inside);
  CHECK_FALSE(task.result.valid());
  CHECK_FALSE(next.ready());
  task.state->set_value(5);
  CHECK(next.get() == std::pair(10, true));
}

TEST_CASE("then() with void on either side, move-only callbacks and values, member pointers", "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  auto nothing = new_state<void>(engine);
  nothing->set_value();
  future<int> from_void = make_future<void>(nothing).then([] { return 3; });
  CHECK(from_void.get() == 3);

  int seen = 0;
  future<void> to_void = ready_future<int>(engine, 4).then([&](int x) { seen = x; });
  to_void.get();
  CHECK(seen == 4);

  auto moved = ready_future<std::unique_ptr<int>>(engine, std::make_unique<int>(5))
                   .then([kept = std::make_unique<int>(1)](std::unique_ptr<int> p) {
                     *p += *kept;
                     return p;
                   });
  CHECK(*moved.get() == 6);

  CHECK(ready_future<std::string>(engine, "four").then(&std::string::size).get() == 4);
  CHECK(ready_future<fussy>(engine, 8).then([](fussy x) { return x.value(); }).get() == 8);
  CHECK(ready_future<int>(engine, 8).then([](int x) { return fussy(x); }).get().value() == 8);
  engine->callbacks().drain_and_stop();  // until then it holds what the value was moved out of
  CHECK(fussy::living == 0);
}

TEST_CASE("what a callback returns by reference is copied", "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  const std::string text = "kept";
  future<std::string> copy = ready_future<int>(engine, 1).then([&](int) -> const std::string& { return text; });
  CHECK(copy.get() == "kept");
}

TEST_CASE("errors pass along a chain until somebody handles them", "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  int called = 0;
  auto count = [&](int x) {
    ++called;
    return x;
  };
  CHECK_THROWS_WITH(failed_future<int>(engine, "first").then(count).then(count).get(), "first");
  CHECK(called == 0);

  future<int> thrown =
      ready_future<int>(engine, 1).then([](int) -> int { throw std::out_of_range("callback"); }).then(count);
  CHECK_THROWS_AS(thrown.get(), std::out_of_range);
  CHECK(called == 0);

  future<int> handled = failed_future<int>(engine, "first").then(count, [](std::exception_ptr e) {
    try {
      std::rethrow_exception(e);
    } catch (const std::runtime_error& error) {
      return std::string(error.what()) == "first" ? 42 : 0;
    }
  });
  CHECK(handled.get() == 42);
  CHECK(called == 0);
}

TEST_CASE("on_error's result converts, it may throw itself, and it does not see what on_value throws",
          "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  future<std::string> converted =
      failed_future<int>(engine, "e")
          .then([](int) { return std::string("value"); }, [](std::exception_ptr) { return "error"; });
  CHECK(converted.get() == "error");

  bool saw = false;
  future<int> not_seen = ready_future<int>(engine, 1).then([](int) -> int { throw std::runtime_error("value"); },
                                                           [&](std::exception_ptr) {
                                                             saw = true;
                                                             return 1;
                                                           });
  CHECK_THROWS_WITH(not_seen.get(), "value");
  CHECK_FALSE(saw);

  future<int> throws =
      failed_future<int>(engine, "e").then([](int x) { return x; }, [](std::exception_ptr) -> int { throw 5; });
  CHECK_THROWS_AS(throws.get(), int);

  future<void> nothing = failed_future<void>(engine, "e").then([] {}, [&](std::exception_ptr) { saw = true; });
  nothing.get();
  CHECK(saw);
  CHECK(ready_future<int>(engine, 3).then([](int x) { return x; }, [](std::exception_ptr) { return 0; }).get() == 3);
}

TEST_CASE("the callback runs although its future was dropped, and is destroyed before its result is seen",
          "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  std::promise<int> called;
  static_cast<void>(std::move(task.result).then([&](int x) { called.set_value(x); }));
  task.state->set_value(6);
  CHECK(called.get_future().get() == 6);

  auto token = std::make_shared<int>(0);
  future<int> next = ready_future<int>(engine, 1).then([token](int x) { return x; });
  next.wait();
  CHECK(token.use_count() == 1);
}

TEST_CASE("a callback's future may be a future: it is not unwrapped", "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  auto nested = ready_future<int>(engine, 1).then([&](int x) { return ready_future<int>(engine, x + 1); });
  static_assert(std::is_same_v<decltype(nested), future<future<int>>>);
  CHECK(nested.get().get() == 2);
}

TEST_CASE("callbacks run after the pool was joined too", "[future][then]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> before(engine);
  int seen = 0;
  static_cast<void>(std::move(before.result).then([&](int x) { seen = x; }));
  before.state->set_value(1);
  engine->join();
  CHECK(seen == 1);
  CHECK(ready_future<int>(engine, 2).then([](int x) { return x; }).get() == 2);
}

TEST_CASE("the last reference to a pool may go in a callback", "[future][then]") {
  auto engine = std::make_shared<fake_engine>();
  const std::weak_ptr<fake_engine> watch = engine;
  std::promise<void> called;
  std::promise<void> go;
  {
    auto state = new_state<int>(engine);
    static_cast<void>(make_future<int>(state).then([&](int) {
      go.get_future().wait();
      called.set_value();
    }));
    state->set_value(1);
  }
  engine.reset();
  go.set_value();
  called.get_future().wait();
  for (int i = 0; i != 1000 && !watch.expired(); ++i) std::this_thread::sleep_for(1ms);
  CHECK(watch.expired());
}

// ---- waiting inside a callback -------------------------------------------------------------------------------------

TEST_CASE("a callback may wait for a callback that is queued behind it", "[future][then][nested]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  pending<int> gate(engine);
  future<int> behind;
  future<int> outer = std::move(gate.result).then([&](int x) { return x + behind.get(); });
  behind = std::move(task.result).then([](int x) { return x * 10; }).then([](int x) { return x + 1; });
  task.state->set_value(2);
  gate.state->set_value(100);
  CHECK(outer.get() == 121);
}

TEST_CASE("a callback may wait for what is settled later by another thread, and for its callbacks",
          "[future][then][nested]") {
  const auto engine = std::make_shared<fake_engine>();
  for (int round = 0; round != 100; ++round) {
    pending<int> task(engine);
    pending<int> gate(engine);
    future<int> late = std::move(task.result).then([](int x) { return x + 1; });
    future<int> outer = std::move(gate.result).then([&](int x) { return x + late.get(); });
    gate.state->set_value(1);
    std::thread settler([&] { task.state->set_value(2); });
    CHECK(outer.get() == 4);
    settler.join();
  }
}

TEST_CASE("a waiting callback does not run what it does not depend on", "[future][then][nested]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> gate(engine);
  pending<int> awaited(engine);
  std::vector<std::string> order;
  future<int> first = std::move(gate.result).then([&](int) {
    order.push_back("first begins");
    const int got = awaited.result.get();
    order.push_back("first ends");
    return got;
  });
  gate.state->set_value(1);
  // It waits for the first, which could not go on if this ran on top of it.
  future<int> second = ready_future<int>(engine, 1).then([&](int x) {
    order.push_back("second begins");
    return x + first.get();
  });
  std::this_thread::sleep_for(5ms);
  awaited.state->set_value(5);
  CHECK(second.get() == 6);
  CHECK(order == std::vector<std::string>{"first begins", "first ends", "second begins"});
}

TEST_CASE("thousands of callbacks that each wait do not pile up on one stack", "[future][then][nested]") {
  const auto engine = std::make_shared<fake_engine>();
  constexpr std::size_t count = 5000;
  std::vector<pending<int>> outer;
  std::vector<pending<int>> inner;
  std::vector<future<int>> results;
  for (std::size_t i = 0; i != count; ++i) {
    outer.emplace_back(engine);
    inner.emplace_back(engine);
  }
  for (std::size_t i = 0; i != count; ++i) {
    results.push_back(std::move(outer[i].result).then([&inner, i](int x) {
      volatile char room[4096] = {};
      static_cast<void>(room[0]);
      return x + inner[i].result.get();
    }));
  }
  for (auto& each : outer) each.state->set_value(1);
  for (std::size_t i = count; i-- != 0;) inner[i].state->set_value(static_cast<int>(i));
  long sum = 0;
  for (auto& each : results) sum += each.get();
  CHECK(sum == static_cast<long>(count * (count - 1) / 2 + count));
}

TEST_CASE("a callback that waits for its own result is told so", "[future][then][nested]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  future<int> own;
  future<int> behind;
  own = std::move(task.result).then([&](int x) {
    if (own.wait_for(1ms) != std::future_status::timeout) return 0;
    try {
      own.wait();
      return 0;
    } catch (const std::system_error& e) {
      if (e.code() != std::errc::resource_deadlock_would_occur) return 0;
    }
    return x;
  });
  task.state->set_value(1);
  own.wait_for(10s);
  CHECK(own.get() == 1);

  pending<int> other(engine);
  std::promise<bool> told;
  behind = std::move(other.result)
               .then([&](int x) {
                 try {
                   behind.wait();
                   told.set_value(false);
                 } catch (const std::system_error&) {
                   told.set_value(true);
                 }
                 return x;
               })
               .then([](int x) { return x + 1; });
  other.state->set_value(1);
  CHECK(told.get_future().get());
  CHECK(behind.get() == 2);
}

TEST_CASE("a wait inside a callback keeps its deadline", "[future][then][nested]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> never(engine);
  future<int> next = ready_future<int>(engine, 1).then([&](int x) {
    if (never.result.wait_for(10ms) != std::future_status::timeout) return 0;
    if (never.result.wait_for(-1s) != std::future_status::timeout) return 0;
    return x;
  });
  CHECK(next.get() == 1);
  never.state->set_value(1);
}

TEST_CASE("a result that a callback waits for may be cancelled elsewhere", "[future][then][nested][cancel]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  future<int> middle = std::move(task.result).then([](int x) { return x; });
  std::promise<void> waits;
  future<bool> outer = ready_future<int>(engine, 1).then([&](int) {
    waits.set_value();
    middle.wait();
    return middle.cancelled();
  });
  waits.get_future().wait();
  CHECK(middle.cancel());
  CHECK(outer.get());
  task.state->set_value(1);
}

TEST_CASE("as_completed, wait_any and wait_all work inside a callback", "[future][then][nested]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> gate(engine);
  std::vector<pending<int>> tasks;
  for (int i = 0; i != 3; ++i) tasks.emplace_back(engine);
  std::vector<future<int>> queued;
  future<int> outer = std::move(gate.result).then([&](int) {
    wait_any(queued);
    int sum = 0;
    for (future<int>& each : as_completed(std::move(queued))) sum += each.get();
    return sum;
  });
  for (auto& each : tasks) queued.push_back(std::move(each.result).then([](int x) { return x * 2; }));
  gate.state->set_value(0);
  int value = 1;
  for (auto& each : tasks) each.state->set_value(value++);
  CHECK(outer.get() == 12);

  std::vector<future<int>> more;
  future<int> all = ready_future<int>(engine, 1).then([&](int x) {
    more.push_back(ready_future<int>(engine, x).then([](int y) { return y; }));
    more.push_back(ready_future<int>(engine, x).then([](int y) { return y; }));
    wait_all(more);
    return more[0].get() + more[1].get();
  });
  CHECK(all.get() == 2);
}

// ---- co_await ------------------------------------------------------------------------------------------------------

TEST_CASE("co_await resumes on the callback thread, with the value or the error", "[future][coroutine]") {
  const auto engine = std::make_shared<fake_engine>();
  std::promise<std::vector<std::string>> done;
  pending<std::unique_ptr<int>> later(engine);
  pending<void> nothing(engine);
  auto coroutine = [](fake_engine& home, future<int> ready, future<std::unique_ptr<int>> pointer, future<void> none,
                      future<int> failed, std::promise<std::vector<std::string>>& to) -> detached {
    std::vector<std::string> seen;
    seen.push_back(home.callbacks().here() ? "inside" : "outside");
    seen.push_back(std::to_string(co_await std::move(ready)));
    seen.push_back(home.callbacks().here() ? "inside" : "outside");
    seen.push_back(std::to_string(*co_await std::move(pointer)));
    co_await std::move(none);
    try {
      co_await std::move(failed);
    } catch (const std::runtime_error& e) {
      seen.push_back(e.what());
    }
    seen.push_back(home.callbacks().here() ? "inside" : "outside");
    to.set_value(seen);
  };
  coroutine(*engine, ready_future<int>(engine, 1), std::move(later.result), std::move(nothing.result),
            failed_future<int>(engine, "failed"), done);
  later.state->set_value(std::make_unique<int>(2));
  nothing.state->set_value();
  CHECK(done.get_future().get() == std::vector<std::string>{"outside", "1", "inside", "2", "failed", "inside"});
}

TEST_CASE("a coroutine that awaits in a loop uses no more stack", "[future][coroutine]") {
  const auto engine = std::make_shared<fake_engine>();
  std::promise<long> done;
  auto coroutine = [](std::shared_ptr<fake_engine> home, std::promise<long>& to) -> detached {
    long sum = 0;
    for (int i = 0; i != 20000; ++i) sum += co_await ready_future<int>(home, i);
    to.set_value(sum);
  };
  coroutine(engine, done);
  CHECK(done.get_future().get() == 199990000);
}

TEST_CASE("a coroutine destroyed while it waits is forgotten", "[future][coroutine]") {
  const auto engine = std::make_shared<fake_engine>();
  pending<int> task(engine);
  bool resumed = false;
  auto coroutine = [](future<int> result, bool& flag) -> held {
    co_await std::move(result);
    flag = true;
  };
  held waiting = coroutine(std::move(task.result), resumed);
  waiting.handle.destroy();
  task.state->set_value(1);
  engine->callbacks().drain_and_stop();
  CHECK_FALSE(resumed);
}

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
  std::thread settler([&] {
    std::this_thread::sleep_for(1ms);
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
    const auto refuses = [&](auto call) {
      try {
        call();
      } catch (const std::future_error&) {
      } catch (const std::logic_error&) {
        ++refused;
      }
    };
    refuses([&] { unfinished->result.get(); });
    refuses([&] { unfinished->result.wait(); });
    refuses([&] { unfinished->result.wait_for(1ms); });
    refuses([&] { unfinished->result.cancel(); });
    refuses([&] { finished->get(); });
    refuses([&] { static_cast<void>(std::move(*finished).then([](int) {})); });
    refuses([&] { wait_any(std::span(&unfinished->result, 1)); });
    refuses([&] { completed->next(); });
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
