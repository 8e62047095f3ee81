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

#include "support/eventually.hpp"
#include "support/pending_futures.hpp"
#include "support/processes.hpp"

using namespace std::chrono_literals;
using procpool::as_completed;
using procpool::wait_all;
using procpool::wait_any;

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
  CHECK(support::eventually([&] { return watch.expired(); }));
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
  std::atomic<pid_t> callbacks{0};
  future<int> first = std::move(gate.result).then([&](int) {
    order.push_back("first begins");
    callbacks = ::gettid();
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
  CHECK(support::eventually([&] { return callbacks != 0; }));
  CHECK(support::await_sleep(callbacks));  // it has nothing that it may run
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
