// SPDX-License-Identifier: BSL-1.0
#include <procpool/transport/in_process.hpp>

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

using namespace procpool;

namespace {

using pool_type = process_pool<in_process>;

/// A door that a task waits at until a thread of the test opens it.
class gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

gate entered;
gate released;
std::atomic<int> counter{0};
pool_type* current = nullptr;

}  // namespace

TEST_CASE("in_process runs a task in the thread that submits it, before submitting returns", "[in_process]") {
  pool_type pool{3};
  CHECK(pool.processes() == 1);
  auto thread = pool.apply_async([] { return std::hash<std::thread::id>()(std::this_thread::get_id()); });
  CHECK(thread.ready());
  CHECK_FALSE(thread.running());
  CHECK_FALSE(thread.cancel());
  CHECK(thread.get() == std::hash<std::thread::id>()(std::this_thread::get_id()));
}

TEST_CASE("in_process tasks change the live state of the program", "[in_process]") {
  counter = 0;
  pool_type pool;
  pool.map([](int i) { counter += i; }, std::vector{1, 2, 3});
  CHECK(counter == 6);
}

TEST_CASE("in_process tasks are on worker 0, generation 0, and nobody else is", "[in_process]") {
  pool_type pool{2, [] { counter = static_cast<int>(this_worker::index()) + (this_worker::in_worker() ? 10 : 0); }};
  CHECK(counter == 10);
  CHECK(pool.apply([] { return this_worker::in_worker(); }));
  CHECK(pool.apply([] { return this_worker::index() + this_worker::generation(); }) == 0);
  CHECK_FALSE(pool.apply([] {
    bool elsewhere = true;
    std::thread([&] { elsewhere = this_worker::in_worker(); }).join();
    return elsewhere;
  }));
  CHECK_FALSE(this_worker::in_worker());
  CHECK_THROWS_AS(this_worker::index(), std::logic_error);
  CHECK_THROWS_AS(this_worker::generation(), std::logic_error);
}

TEST_CASE("in_process runs the initializer at construction and the finalizer at the join of a closed pool",
          "[in_process]") {
  std::vector<std::string> events;
  {
    pool_type pool{pool_options{.initializer = [&] { events.push_back("initializer"); },
                                .finalizer =
                                    [&] {
                                      events.push_back("finalizer");
                                      CHECK(this_worker::in_worker());
                                      throw std::runtime_error("nobody hears it");
                                    }}};
    CHECK(events == std::vector<std::string>{"initializer"});
    pool.close();
    CHECK(events.size() == 1);
    CHECK(pool.stats().workers.at(0).alive);
    pool.join();
    CHECK(events == std::vector<std::string>{"initializer", "finalizer"});
    CHECK_FALSE(pool.stats().workers.at(0).alive);
    pool.join();
  }
  CHECK(events.size() == 2);
  {
    pool_type pool{pool_options{.finalizer = [&] { events.push_back("finalizer"); }}};
    pool.terminate();
  }
  CHECK(events.size() == 2);
}

TEST_CASE("in_process: an initializer that throws fails the constructor", "[in_process]") {
  const auto construct = [](auto initializer) { pool_type pool{pool_options{.initializer = initializer}}; };
  CHECK_THROWS_AS(construct([] { throw std::runtime_error("no licence"); }), worker_start_error);
  CHECK_THROWS_WITH(construct([] { throw std::runtime_error("no licence"); }), Catch::Contains("no licence"));
  CHECK_THROWS_AS(construct([] { throw 7; }), worker_start_error);
}

TEST_CASE("in_process tasks may use the pool that runs them", "[in_process]") {
  pool_type pool;
  current = &pool;
  const auto sum = pool.apply([] {
    int all = 0;
    for (int value :
         current->map([](int i) { return current->apply([](int j) { return j * j; }, i); }, std::vector{1, 2, 3}))
      all += value;
    return all;
  });
  CHECK(sum == 14);
  const pool_stats stats = pool.stats();
  CHECK(stats.tasks_submitted == 7);
  CHECK(stats.tasks_completed == 7);
  CHECK(stats.workers.at(0).busy.count() > 0);
}

TEST_CASE("in_process: a task may close, join and even destroy its pool", "[in_process]") {
  pool_type pool;
  current = &pool;
  CHECK(pool.apply([] {
    current->close();
    current->join();
    return 5;
  }) == 5);
  CHECK_THROWS_AS(pool.apply([] {}), pool_closed);

  static auto* doomed = new pool_type;
  CHECK(doomed
            ->apply_async([] {
              delete doomed;
              return 6;
            })
            .get() == 6);
}

TEST_CASE("in_process: terminate in another thread ends every element, and drops what still runs", "[in_process]") {
  pool_type pool;
  counter = 0;
  std::thread other;
  auto results = std::vector<outcome<int>>();
  std::thread submitting([&] {
    results = pool.try_map(
        [](int i) {
          if (i == 1) {
            entered.open();
            released.pass();
          }
          ++counter;
          return i;
        },
        std::vector{0, 1, 2, 3});
  });
  entered.pass();
  const pool_stats before = pool.stats();
  CHECK(before.tasks_running == 1);
  CHECK(before.tasks_queued == 2);
  CHECK(before.tasks_completed == 1);
  pool.terminate();
  const pool_stats after = pool.stats();
  CHECK(after.tasks_submitted == 4);
  CHECK(after.tasks_completed == 1);
  CHECK(after.tasks_failed == 3);
  CHECK(after.tasks_queued + after.tasks_running == 0);
  released.open();
  submitting.join();
  pool.join();
  REQUIRE(results.size() == 4);
  CHECK(results[0].value() == 0);
  for (std::size_t i = 1; i != 4; ++i) CHECK_THROWS_AS(results[i].value(), pool_terminated);
  CHECK(counter == 2);
}

TEST_CASE("in_process: a thread that ends in a task is let go, and its tasks fail", "[in_process]") {
  pool_type pool;
  const auto run = [](void* with) -> void* {
    static_cast<pool_type*>(with)->map(
        [](int i) {
          if (i == 1) pthread_exit(reinterpret_cast<void*>(42));
          return i;
        },
        std::vector{0, 1, 2});
    return nullptr;
  };
  pthread_t thread{};
  REQUIRE(pthread_create(&thread, nullptr, run, &pool) == 0);
  void* result = nullptr;
  REQUIRE(pthread_join(thread, &result) == 0);
  CHECK(result == reinterpret_cast<void*>(42));
  const pool_stats stats = pool.stats();
  CHECK(stats.tasks_submitted == 3);
  CHECK(stats.tasks_completed == 1);
  CHECK(stats.tasks_failed == 2);
  CHECK(pool.apply([] { return 3; }) == 3);
}

TEST_CASE("in_process: several threads run their own tasks at the same time", "[in_process]") {
  pool_type pool;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t != 4; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round != 50; ++round) {
        const auto values = pool.map([](int i) { return i * 2; }, std::vector{t, t + 1, t + 2});
        if (values != std::vector{2 * t, 2 * t + 2, 2 * t + 4}) ++wrong;
        const pool_stats now = pool.stats();
        if (now.tasks_submitted != now.tasks_completed + now.tasks_failed + now.tasks_queued + now.tasks_running)
          ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(pool.stats().tasks_completed == 600);
}
