// SPDX-License-Identifier: BSL-1.0
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include <procpool/detail/callback_thread.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/event_count.hpp>

#include "support/eventually.hpp"
#include "support/processes.hpp"

using namespace std::chrono_literals;
using procpool::detail::callback_item;
using procpool::detail::callback_thread;

namespace {

std::size_t count_threads() { return support::names_in("/proc/self/task").size(); }

// How many threads there are before a test: sanitizers start one of their own with the first.
std::size_t threads_before() {
  pid_t first = 0;
  std::thread([&] { first = ::gettid(); }).join();
  REQUIRE(
      support::eventually([&] { return ::access(("/proc/self/task/" + std::to_string(first)).c_str(), F_OK) != 0; }));
  return count_threads();
}

// The kernel lists a thread for a moment after it was joined.
bool threads_come_down_to(std::size_t count) {
  return support::eventually([&] { return count_threads() == count; });
}

struct counting_item final : callback_item {
  void run() noexcept override { ++runs; }
  int runs = 0;
};

}  // namespace

TEST_CASE("the callback thread starts when the first item is posted and is gone after drain_and_stop",
          "[callback_thread]") {
  const std::size_t before = threads_before();
  callback_thread callbacks;
  CHECK(count_threads() == before);
  CHECK_FALSE(callbacks.here());

  std::promise<std::thread::id> first;
  std::promise<std::thread::id> second;
  bool inside = false;
  callbacks.post([&] {
    inside = callbacks.here();
    first.set_value(std::this_thread::get_id());
  });
  const std::thread::id runner = first.get_future().get();
  CHECK(inside);
  CHECK(runner != std::this_thread::get_id());
  CHECK(count_threads() == before + 1);
  callbacks.post([&] { second.set_value(std::this_thread::get_id()); });
  CHECK(second.get_future().get() == runner);

  callbacks.drain_and_stop();
  CHECK(threads_come_down_to(before));
  callbacks.drain_and_stop();
}

TEST_CASE("items run one at a time, in the order of posting, and drain_and_stop waits for those that are due",
          "[callback_thread]") {
  callback_thread callbacks;
  std::vector<int> order;
  std::atomic<int> at_once{0};
  for (int i = 0; i != 1000; ++i) {
    callbacks.post([&order, &at_once, i] {
      if (++at_once != 1) order.push_back(-1);
      order.push_back(i);
      --at_once;
    });
  }
  callbacks.drain_and_stop();
  REQUIRE(order.size() == 1000);
  for (int i = 0; i != 1000; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("items that items post are due as well", "[callback_thread]") {
  callback_thread callbacks;
  int left = 100;
  std::function<void()> again = [&] {
    if (--left > 0) callbacks.post(again);
  };
  callbacks.post(again);
  callbacks.drain_and_stop();
  CHECK(left == 0);
}

TEST_CASE("the destructor does what drain_and_stop does", "[callback_thread]") {
  const std::size_t before = threads_before();
  bool ran = false;
  {
    callback_thread callbacks;
    callbacks.post([&] { ran = true; });
  }
  CHECK(ran);
  CHECK(threads_come_down_to(before));
}

TEST_CASE("what is posted after the stop runs on a thread that leaves by itself", "[callback_thread]") {
  const std::size_t before = threads_before();
  callback_thread callbacks;
  callbacks.post([] {});
  callbacks.drain_and_stop();
  for (int i = 0; i != 20; ++i) {
    std::promise<bool> ran;
    callbacks.post([&] { ran.set_value(callbacks.here()); });
    CHECK(ran.get_future().get());
  }
  CHECK(threads_come_down_to(before));
}

TEST_CASE("drain_and_stop inside a callback does not wait, and the rest still runs", "[callback_thread]") {
  callback_thread callbacks;
  std::promise<void> posted;
  std::atomic<int> ran{0};
  std::promise<int> seen_inside;
  std::shared_future<void> may_go = posted.get_future().share();
  callbacks.post([&, may_go] {
    may_go.wait();
    callbacks.drain_and_stop();
    seen_inside.set_value(ran.load());
  });
  callbacks.post([&] { ++ran; });
  posted.set_value();
  CHECK(seen_inside.get_future().get() == 0);
  callbacks.drain_and_stop();
  CHECK(ran == 1);
}

TEST_CASE("a callback may destroy what it runs on", "[callback_thread]") {
  const std::size_t before = threads_before();
  auto callbacks = std::make_unique<callback_thread>();
  std::promise<void> go;
  std::promise<void> gone;
  std::promise<void> after;
  callbacks->post([&] {
    go.get_future().wait();
    callbacks.reset();
    gone.set_value();
  });
  callbacks->post([&] { after.set_value(); });
  go.set_value();
  gone.get_future().wait();
  after.get_future().wait();
  CHECK(threads_come_down_to(before));
}

TEST_CASE("several threads that stop it all return after the last item", "[callback_thread]") {
  for (int round = 0; round != 20; ++round) {
    callback_thread callbacks;
    std::atomic<int> ran{0};
    for (int i = 0; i != 50; ++i) callbacks.post([&] { ++ran; });
    std::vector<std::thread> stoppers;
    std::atomic<int> early{0};
    for (int i = 0; i != 4; ++i) {
      stoppers.emplace_back([&] {
        callbacks.drain_and_stop();
        if (ran != 50) ++early;
      });
    }
    for (std::thread& each : stoppers) each.join();
    CHECK(early == 0);
  }
}

TEST_CASE("posting from many threads loses nothing and keeps each thread's order", "[callback_thread]") {
  callback_thread callbacks;
  constexpr int threads = 4;
  constexpr int each_posts = 500;
  std::vector<int> next(threads, 0);
  int out_of_order = 0;
  std::vector<std::thread> posters;
  for (int t = 0; t != threads; ++t) {
    posters.emplace_back([&, t] {
      for (int i = 0; i != each_posts; ++i) {
        callbacks.post([&next, &out_of_order, t, i] {
          if (next[static_cast<std::size_t>(t)]++ != i) ++out_of_order;
        });
      }
    });
  }
  for (std::thread& each : posters) each.join();
  callbacks.drain_and_stop();
  CHECK(out_of_order == 0);
  for (const int count : next) CHECK(count == each_posts);
}

TEST_CASE("a callback can run a queued item out of turn, and withdraw one", "[callback_thread]") {
  callback_thread callbacks;
  counting_item wanted;
  counting_item dropped;
  counting_item never_posted;
  std::promise<void> posted;
  std::vector<bool> seen;
  callbacks.post([&] {
    posted.get_future().wait();
    seen.push_back(callbacks.run_now(wanted));
    seen.push_back(wanted.runs == 1);
    seen.push_back(callbacks.run_now(wanted));
    seen.push_back(callbacks.withdraw(dropped));
    seen.push_back(callbacks.withdraw(dropped));
    seen.push_back(callbacks.run_now(never_posted));
  });
  callbacks.post(dropped);
  callbacks.post(wanted);
  posted.set_value();
  callbacks.drain_and_stop();
  CHECK(seen == std::vector<bool>{true, true, false, true, false, false});
  CHECK(wanted.runs == 1);
  CHECK(dropped.runs == 0);
}

TEST_CASE("a callback can pump the items behind it until something has happened", "[callback_thread]") {
  callback_thread callbacks;
  std::promise<void> posted;
  int ran = 0;
  bool in_time = false;
  bool too_late = true;
  callbacks.post([&] {
    posted.get_future().wait();
    in_time = callbacks.pump_until([&] { return ran == 2; });
    too_late = callbacks.pump_until([&] { return ran == 4; }, procpool::detail::deadline_after(10ms));
  });
  for (int i = 0; i != 3; ++i) callbacks.post([&] { ++ran; });
  posted.set_value();
  callbacks.drain_and_stop();
  CHECK(in_time);
  CHECK_FALSE(too_late);
  CHECK(ran == 3);
}

TEST_CASE("the callback thread takes none of the application's signals", "[callback_thread]") {
  callback_thread callbacks;
  sigset_t mask;
  sigemptyset(&mask);
  callbacks.post([&] { pthread_sigmask(SIG_SETMASK, nullptr, &mask); });
  callbacks.drain_and_stop();
  for (const int signal : {SIGINT, SIGTERM, SIGCHLD, SIGUSR1, SIGALRM, SIGPIPE, SIGRTMIN})
    CHECK(sigismember(&mask, signal) == 1);
  CHECK(sigismember(&mask, SIGSEGV) == 0);  // a fault in a callback is for the application's handler
  sigset_t ours;
  pthread_sigmask(SIG_SETMASK, nullptr, &ours);
  CHECK(sigismember(&ours, SIGINT) == 0);
}

#if !defined(__SANITIZE_THREAD__)  // which cannot follow a fork of a process with threads
TEST_CASE("a forked child leaves the parent's callback thread alone", "[callback_thread][fork]") {
  auto callbacks = std::make_unique<callback_thread>();
  std::promise<void> running;
  std::promise<void> go;
  callbacks->post([&] {
    running.set_value();
    go.get_future().wait();
  });
  running.get_future().wait();
  const pid_t child = ::fork();
  if (child == 0) {
    const bool inside = callbacks->here();
    callbacks->drain_and_stop();
    callbacks.reset();
    ::_exit(inside ? 1 : 0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  go.set_value();
  callbacks->drain_and_stop();
}

#endif

TEST_CASE("where no thread can be had, whoever posts stands in for it", "[callback_thread]") {
  pthread_attr_t before;
  REQUIRE(pthread_getattr_default_np(&before) == 0);
  pthread_attr_t impossible;
  pthread_attr_init(&impossible);
  pthread_attr_setstacksize(&impossible, std::size_t{1} << 50);  // more than the address space
  REQUIRE(pthread_setattr_default_np(&impossible) == 0);

  callback_thread callbacks;
  std::vector<int> order;
  std::thread::id runner;
  bool inside = false;
  callbacks.post([&] {
    callbacks.post([&] { order.push_back(2); });
    runner = std::this_thread::get_id();
    inside = callbacks.here();
    order.push_back(1);
  });
  CHECK(order == std::vector<int>{1, 2});
  CHECK(inside);
  CHECK(runner == std::this_thread::get_id());
  CHECK_FALSE(callbacks.here());

  counting_item queued;
  callbacks.enqueue(queued);
  CHECK(queued.runs == 0);
  callbacks.serve_if_stranded();
  CHECK(queued.runs == 1);
  callbacks.enqueue(queued);
  callbacks.drain_and_stop();
  CHECK(queued.runs == 2);

  REQUIRE(pthread_setattr_default_np(&before) == 0);
  callbacks.post([&] { runner = std::this_thread::get_id(); });
  callbacks.drain_and_stop();
  CHECK(runner != std::this_thread::get_id());
  pthread_attr_destroy(&before);
  pthread_attr_destroy(&impossible);
}

TEST_CASE("deadlines do not overflow", "[deadline]") {
  using namespace procpool::detail;
  using std::chrono::steady_clock;
  const auto is_past = [](steady_time deadline) { return deadline <= steady_clock::now(); };
  CHECK(deadline_after(std::chrono::hours::max()) == no_deadline);
  CHECK(deadline_after(std::chrono::nanoseconds::max()) == no_deadline);
  CHECK(deadline_after(std::chrono::duration<double>(std::numeric_limits<double>::infinity())) == no_deadline);
  CHECK(is_past(deadline_after(std::chrono::nanoseconds::min())));
  CHECK(is_past(deadline_after(std::chrono::hours::min())));
  CHECK(is_past(deadline_after(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN()))));
  CHECK(is_past(deadline_after(0s)));
  CHECK(deadline_at(steady_clock::time_point::max()) == no_deadline);
  CHECK(is_past(deadline_at(steady_clock::time_point::min())));
  CHECK(is_past(deadline_at(std::chrono::system_clock::time_point::min())));
  CHECK(deadline_at(std::chrono::time_point<std::chrono::system_clock, std::chrono::hours>::max()) == no_deadline);
  const auto soon = deadline_at(std::chrono::system_clock::now() + 1h) - steady_clock::now();
  CHECK(soon > 59min);
  CHECK(soon < 61min);
  const auto start = steady_clock::now();
  const auto half = deadline_after(std::chrono::duration<double>(0.5));
  CHECK(half >= start + 500ms);
  CHECK(half < start + 10s);
}

TEST_CASE("a futex word wakes its sleeper, keeps deadlines, and looks at the value first", "[futex]") {
  using namespace procpool::detail;
  for (const futex_scope scope : {futex_scope::process, futex_scope::shared}) {
    std::atomic<std::uint32_t> word{1};
    CHECK(futex_wait(word, 0, no_deadline, scope));  // another value: returns at once
    const auto start = std::chrono::steady_clock::now();
    CHECK_FALSE(futex_wait(word, 1, start + 20ms, scope));
    CHECK(std::chrono::steady_clock::now() >= start + 20ms);
    CHECK_FALSE(futex_wait(word, 1, steady_time::min(), scope));
    std::thread waker([&] {
      word = 2;
      futex_wake(word, scope);
    });
    while (word == 1) futex_wait(word, 1, no_deadline, scope);
    waker.join();
  }
}

TEST_CASE("an event count loses no notification", "[event_count]") {
  procpool::detail::event_count events;
  std::atomic<int> produced{0};
  constexpr int total = 20000;
  std::vector<std::thread> consumers;
  for (int t = 0; t != 2; ++t) {
    consumers.emplace_back([&] {
      for (;;) {
        const std::uint32_t seen = events.now();
        if (produced.load() == total) return;
        events.wait(seen, procpool::detail::no_deadline);
      }
    });
  }
  for (int i = 0; i != total; ++i) {
    ++produced;
    events.notify();
  }
  for (std::thread& each : consumers) each.join();
  CHECK(produced == total);
}
