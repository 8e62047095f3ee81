// SPDX-License-Identifier: BSL-1.0
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include <catch2/catch.hpp>

#include <procpool/detail/codec/encode.hpp>
#include <procpool/detail/codec/exception_codec.hpp>
#include <procpool/lazy_results.hpp>

#include "fake_engine.hpp"

using namespace std::chrono_literals;
using procpool::lazy_results;
using procpool::detail::call_frame;
using procpool::detail::lazy_options;
using procpool::detail::lazy_source;
using procpool::detail::pulled;
using procpool::detail::reply_kind;

namespace {

using result_range = lazy_results<int>;

// The tasks; ints are their own encoding.
reply_kind times_ten(call_frame& frame) {
  frame.result.put(frame.arguments.get<int>() * 10);
  return reply_kind::value;
}

reply_kind boxed(call_frame& frame) {
  procpool::detail::encode(frame.result, std::make_unique<int>(frame.arguments.get<int>() * 10));
  return reply_kind::value;
}

reply_kind throws_by_number(call_frame& frame) {
  procpool::detail::encode_exception(
      frame.result, std::make_exception_ptr(std::out_of_range(std::to_string(frame.arguments.get<int>()))));
  return reply_kind::exception;
}

reply_kind says_unserializable(call_frame& frame) {
  procpool::detail::encode_failure(
      frame.result, procpool::detail::make_error<procpool::serialization_error>("cause", std::string("type")));
  return reply_kind::unserializable;
}

reply_kind no_such_kind(call_frame&) { return static_cast<reply_kind>(99); }

reply_kind nothing(call_frame& frame) {
  frame.arguments.get<int>();
  return reply_kind::value;
}

reply_kind half_a_value(call_frame& frame) {
  frame.result.put('x');
  return reply_kind::value;
}

reply_kind no_room(call_frame&) { return reply_kind::out_of_memory; }

reply_kind add_callable(call_frame& frame) {
  frame.result.put(frame.callable.get<int>() + frame.arguments.get<int>());
  return reply_kind::value;
}

// Inputs 0, 1, 2, …, and what goes wrong with some of them.
struct script {
  int count = 0;         // how many there are; -1: no end
  int unencodable = -1;  // this one cannot be encoded
  int throws_at = -1;    // taking this one throws
  procpool::detail::task_code code = times_ten;
  std::function<void(int)> on_pull{};
};

template <class R>
class scripted final : public lazy_source<R> {
 public:
  scripted(script what, std::shared_ptr<int> taken) : lazy_source<R>(what.code, "imap"), what_(what), taken_(taken) {
    this->callable.put(1000);
  }

  pulled pull_next(procpool::detail::byte_writer& arguments) override {
    if (ended_) throw std::logic_error("pulled after the end");
    const int next = *taken_;
    if (what_.on_pull) what_.on_pull(next);
    if (next == what_.throws_at) {
      ended_ = true;
      throw std::out_of_range("the input threw");
    }
    if (next == what_.count) {
      ended_ = true;
      return {pulled::kind::end};
    }
    ++*taken_;
    arguments.put(next);
    if (next == what_.unencodable)
      return {pulled::kind::unencodable, std::make_exception_ptr(std::domain_error("unencodable"))};
    return {pulled::kind::element};
  }

 private:
  const script what_;
  const std::shared_ptr<int> taken_;
  bool ended_ = false;
};

template <class R = int>
struct lazy {
  explicit lazy(script what, lazy_options options = {.buffersize = 4}) : lazy(what, options, [](fake_engine&) {}) {}
  lazy(script what, lazy_options options, const std::function<void(fake_engine&)>& prepare)
      : engine((prepare(*shared), shared)),
        results(engine, std::make_unique<scripted<R>>(what, taken), std::move(options)) {}

  const std::shared_ptr<fake_engine> shared = std::make_shared<fake_engine>();
  const std::shared_ptr<int> taken = std::make_shared<int>(0);
  const std::shared_ptr<fake_engine> engine;
  lazy_results<R> results;
};

std::vector<int> rest_of(result_range& results) {
  std::vector<int> all;
  for (int& each : results) all.push_back(each);
  return all;
}

void run_while_waiting(fake_engine& engine) { engine.run_in_help = true; }

}  // namespace

static_assert(std::ranges::input_range<result_range> && std::ranges::view<result_range>);
static_assert(std::movable<result_range> && !std::copyable<result_range>);
static_assert(std::same_as<std::ranges::range_reference_t<result_range>, int&>);
static_assert(std::same_as<std::ranges::range_value_t<lazy_results<void>>, std::monostate>);
static_assert(!std::ranges::forward_range<result_range>);

TEST_CASE("results come in input order, whatever order the tasks end in", "[lazy_results]") {
  lazy<> range({.count = 4});
  for (const std::size_t index : {2u, 0u, 1u, 0u}) range.engine->run(index);
  CHECK(rest_of(range.results) == std::vector<int>{0, 10, 20, 30});
  CHECK(range.results.begin() == range.results.end());
  CHECK_FALSE(range.results.next().has_value());
  CHECK(range.engine->completed == 4);
}

TEST_CASE("unordered results come in the order of completion", "[lazy_results]") {
  lazy<> range({.count = 4}, {.buffersize = 4, .ordered = false});
  for (const std::size_t index : {2u, 0u, 1u, 0u}) range.engine->run(index);
  CHECK(rest_of(range.results) == std::vector<int>{20, 0, 30, 10});
}

TEST_CASE("an unordered range does not wait for a slow element, and never takes too much", "[lazy_results]") {
  lazy<> range({.count = 100}, {.buffersize = 3, .ordered = false});
  const auto slow = range.engine->take();
  REQUIRE(slow);
  run_while_waiting(*range.engine);
  for (int i = 1; i != 100; ++i) {
    CHECK(*range.results.next() == i * 10);
    CHECK(*range.taken <= i + 3);
  }
  CHECK_THROWS_AS(range.results.next(1ms), procpool::timeout_error);
  range.engine->run(*slow);
  CHECK(*range.results.next() == 0);
  CHECK_FALSE(range.results.next().has_value());
}

TEST_CASE("no inputs make a range that is at its end", "[lazy_results]") {
  lazy<> range({.count = 0});
  CHECK(range.results.begin() == range.results.end());
  CHECK_FALSE(range.results.next(1h).has_value());
}

TEST_CASE("up to buffersize inputs are taken when it is made, and never more ahead of what was yielded",
          "[lazy_results][buffersize]") {
  for (const std::size_t chunksize : {0u, 1u, 2u, 3u, 8u, 100u}) {
    for (const bool ordered : {true, false}) {
      lazy<> range({.count = -1}, {.buffersize = 8, .chunksize = chunksize, .ordered = ordered}, run_while_waiting);
      CHECK(*range.taken == 8);
      CHECK(range.engine->waiting() == 8);
      int yielded = 0;
      for (const int each : range.results) {
        ++yielded;
        CHECK(each == (yielded - 1) * 10);
        CHECK(*range.taken <= yielded + 8);
        CHECK(*range.taken >= yielded);
        if (yielded == 50) break;
      }
      if (chunksize <= 1) CHECK(*range.taken == 49 + 8);
      for (const std::size_t size : range.engine->chunk_sizes) CHECK(size <= std::clamp<std::size_t>(chunksize, 1, 8));
    }
  }
}

TEST_CASE("a buffer of one works, one element after the other", "[lazy_results][buffersize]") {
  lazy<> range({.count = 5}, {.buffersize = 1, .chunksize = 7}, run_while_waiting);
  CHECK(*range.taken == 1);
  CHECK(rest_of(range.results) == std::vector<int>{0, 10, 20, 30, 40});
}

TEST_CASE("without a buffersize a small multiple of processes and chunksize is taken", "[lazy_results][buffersize]") {
  lazy<> plain({.count = -1}, {.chunksize = 1});
  CHECK(*plain.taken >= 2 * 2);
  CHECK(*plain.taken <= 16 * 2);
  lazy<> chunked({.count = -1}, {.chunksize = 10});
  CHECK(*chunked.taken >= 2 * 2 * 10);
  CHECK(*chunked.taken <= 16 * 2 * 10);
  lazy<> huge({.count = 3}, {.chunksize = static_cast<std::size_t>(-1)}, run_while_waiting);
  CHECK(rest_of(huge.results) == std::vector<int>{0, 10, 20});
  lazy<> unbounded({.count = 3}, {.buffersize = static_cast<std::size_t>(-1)}, run_while_waiting);
  CHECK(rest_of(unbounded.results) == std::vector<int>{0, 10, 20});
}

TEST_CASE("chunks are full where they can be, and what is there is sent at the end", "[lazy_results][chunksize]") {
  lazy<> range({.count = 10}, {.buffersize = 100, .chunksize = 4}, run_while_waiting);
  CHECK(range.engine->chunk_sizes == std::vector<std::size_t>{4, 4, 2});
  CHECK(rest_of(range.results).size() == 10);

  lazy<> bounded({.count = -1}, {.buffersize = 6, .chunksize = 4}, run_while_waiting);
  CHECK(bounded.engine->chunk_sizes == std::vector<std::size_t>{4, 2});
  for (int i = 0; i != 300; ++i) CHECK(*bounded.results.next() == i * 10);
  CHECK(bounded.engine->chunk_sizes.size() <= 2 + 100);  // chunks go on being chunks
}

TEST_CASE("each chunk is submitted before the next input is taken", "[lazy_results][chunksize]") {
  std::shared_ptr<fake_engine> engine;
  std::vector<std::size_t> waiting;
  lazy<> range({.count = 5, .on_pull = [&](int) { waiting.push_back(engine->waiting()); }},
               {.buffersize = 8, .chunksize = 2},
               [&](fake_engine& made) { engine = std::shared_ptr<fake_engine>(std::shared_ptr<void>(), &made); });
  CHECK(waiting == std::vector<std::size_t>{0, 0, 2, 2, 4, 4});
}

TEST_CASE("the callable goes into the job", "[lazy_results]") {
  lazy<> range({.count = 3, .code = add_callable}, {.buffersize = 2}, run_while_waiting);
  CHECK(rest_of(range.results) == std::vector<int>{1000, 1001, 1002});
}

TEST_CASE("move-only results, and void tasks yield monostate", "[lazy_results]") {
  lazy<std::unique_ptr<int>> boxes({.count = 3, .code = boxed}, {.buffersize = 2}, run_while_waiting);
  CHECK(**boxes.results.next() == 0);
  std::vector<std::unique_ptr<int>> taken;
  for (auto& each : boxes.results) taken.push_back(std::move(each));
  REQUIRE(taken.size() == 2);
  CHECK(*taken[1] == 20);

  lazy<void> voids({.count = 3, .code = nothing}, {.buffersize = 2}, run_while_waiting);
  std::size_t count = 0;
  for (const std::monostate& each : voids.results) count += each == std::monostate{};
  CHECK(count == 3);
}

TEST_CASE("results in memory that may change are decoded from a copy", "[lazy_results]") {
  lazy<std::unique_ptr<int>> range({.count = 2, .code = boxed}, {}, [](fake_engine& engine) {
    engine.stable = false;
    engine.run_in_help = true;
  });
  CHECK(**range.results.next() == 0);
  CHECK(**range.results.next() == 10);
  lazy<> thrown({.count = 1, .code = throws_by_number}, {}, [](fake_engine& engine) {
    engine.stable = false;
    engine.run_in_help = true;
  });
  CHECK_THROWS_WITH(thrown.results.next(), "0");
}

TEST_CASE("replies that hold no result end their element in the error that they mean", "[lazy_results][errors]") {
  lazy<> malformed({.count = 1, .code = half_a_value}, {}, run_while_waiting);
  CHECK_THROWS_WITH(malformed.results.next(), Catch::StartsWith("procpool: imap: task 0: the result: "));
  CHECK(malformed.engine->completed == 0);
  lazy<> full({.count = 1, .code = no_room}, {}, run_while_waiting);
  CHECK_THROWS_AS(full.results.next(), procpool::out_of_shared_memory);
  lazy<> thrown({.count = 1, .code = throws_by_number}, {}, run_while_waiting);
  CHECK_THROWS_AS(thrown.results.next(), std::out_of_range);
  lazy<> unserializable({.count = 1, .code = says_unserializable}, {}, run_while_waiting);
  CHECK_THROWS_WITH(unserializable.results.next(), "procpool: imap: task 0: cause");
  lazy<> unknown({.count = 1, .code = no_such_kind}, {}, run_while_waiting);
  CHECK_THROWS_AS(unknown.results.next(), procpool::serialization_error);
}

TEST_CASE("a failed task throws from the dereference of its own element, each time, and iteration goes on",
          "[lazy_results][errors]") {
  lazy<> range({.count = 3});
  range.engine->fail(*range.engine->take(1), std::make_exception_ptr(std::runtime_error("one")));
  run_while_waiting(*range.engine);
  auto it = range.results.begin();
  CHECK(*it == 0);
  *it = 5;
  CHECK(*it == 5);  // it refers into the range
  ++it;
  REQUIRE(it != range.results.end());
  CHECK_THROWS_WITH(*it, "one");
  CHECK_THROWS_WITH(*it, "one");
  ++it;
  CHECK(*it == 20);
  it++;
  CHECK(it == range.results.end());
}

TEST_CASE("next() throws a failed element's error once and goes on", "[lazy_results][errors]") {
  lazy<> range({.count = 3});
  range.engine->fail(*range.engine->take(1), std::make_exception_ptr(std::runtime_error("one")));
  run_while_waiting(*range.engine);
  CHECK(range.results.next() == 0);
  CHECK_THROWS_WITH(range.results.next(), "one");
  CHECK(range.results.next() == 20);
  CHECK_FALSE(range.results.next().has_value());
}

TEST_CASE("what cannot be encoded is thrown at its element, and parts a chunk", "[lazy_results][errors]") {
  for (const bool ordered : {true, false}) {
    lazy<> range({.count = 5, .unencodable = 2}, {.buffersize = 8, .chunksize = 4, .ordered = ordered});
    CHECK(range.engine->chunk_sizes == std::vector<std::size_t>{2, 2});
    if (!ordered) CHECK_THROWS_AS(range.results.next(), std::domain_error);  // it has ended first
    run_while_waiting(*range.engine);
    CHECK(range.results.next() == 0);
    CHECK(range.results.next() == 10);
    if (ordered) CHECK_THROWS_AS(range.results.next(), std::domain_error);
    CHECK(range.results.next() == 30);
    CHECK(range.results.next() == 40);
    CHECK_FALSE(range.results.next().has_value());
  }
}

TEST_CASE("an exception from the input comes where its element would have been; then the range is at its end",
          "[lazy_results][errors]") {
  for (const bool ordered : {true, false}) {
    lazy<> range({.count = 10, .throws_at = 3}, {.buffersize = 8, .chunksize = 2, .ordered = ordered});
    for (const std::size_t index : {2u, 1u, 0u}) range.engine->run(index);
    std::vector<int> values;
    auto it = range.results.begin();
    for (int i = 0; i != 3; ++i, ++it) values.push_back(*it);
    std::sort(values.begin(), values.end());
    CHECK(values == std::vector<int>{0, 10, 20});
    REQUIRE(it != range.results.end());
    CHECK_THROWS_AS(*it, std::out_of_range);
    CHECK_THROWS_AS(*it, std::out_of_range);
    ++it;
    CHECK(it == range.results.end());
    CHECK_FALSE(range.results.next().has_value());
  }
  lazy<> at_once({.count = 10, .throws_at = 0});
  CHECK_THROWS_AS(at_once.results.next(), std::out_of_range);
  CHECK_FALSE(at_once.results.next().has_value());
  lazy<> later({.count = 10, .throws_at = 6}, {.buffersize = 2}, run_while_waiting);
  for (int i = 0; i != 6; ++i) CHECK(later.results.next() == i * 10);
  CHECK_THROWS_AS(later.results.next(), std::out_of_range);
  CHECK(later.results.begin() == later.results.end());
}

TEST_CASE("begin() goes on where next(), or a loop that was left, stopped", "[lazy_results]") {
  lazy<> range({.count = 8}, {.buffersize = 3}, run_while_waiting);
  CHECK(range.results.next() == 0);
  CHECK(*range.results.begin() == 10);
  CHECK(range.results.next() == 20);
  for (const int each : range.results) {
    if (each == 40) break;
  }
  CHECK(range.results.next() == 50);
  auto unseen = range.results.begin();
  auto again = range.results.begin();
  CHECK(*unseen == 60);
  CHECK(*again == 60);
  ++unseen;
  CHECK(range.results.next() == 70);  // begun, but not looked at: not lost
  CHECK(range.results.begin() == range.results.end());
}

TEST_CASE("algorithms and views of the standard library take the range", "[lazy_results]") {
  lazy<> range({.count = -1}, {.buffersize = 3}, run_while_waiting);
  std::vector<int> seen;
  for (const int each : std::move(range.results) | std::views::transform([](int x) { return x + 1; }) |
                            std::views::take_while([](int x) { return x < 50; }))
    seen.push_back(each);
  CHECK(seen == std::vector<int>{1, 11, 21, 31, 41});
}

TEST_CASE("iterators stay good when the range is moved", "[lazy_results]") {
  lazy<> range({.count = 3}, {.buffersize = 3}, run_while_waiting);
  auto it = range.results.begin();
  CHECK(*it == 0);
  result_range moved = std::move(range.results);
  ++it;
  CHECK(*it == 10);
  CHECK(moved.next() == 20);
}

TEST_CASE("next(duration) throws timeout_error, loses nothing, and can be called again", "[lazy_results][timeout]") {
  lazy<> range({.count = 2});
  const auto start = std::chrono::steady_clock::now();
  CHECK_THROWS_AS(range.results.next(20ms), procpool::timeout_error);
  CHECK(std::chrono::steady_clock::now() - start >= 20ms);
  CHECK_THROWS_AS(range.results.next(-1s), procpool::timeout_error);
  range.engine->run(1);
  CHECK_THROWS_AS(range.results.next(0s), procpool::timeout_error);
  range.engine->run(0);
  CHECK(range.results.next(0s) == 0);
  CHECK(range.results.next(std::chrono::hours::max()) == 10);
  CHECK_FALSE(range.results.next(0s).has_value());
}

TEST_CASE("it wakes when another thread settles the next element", "[lazy_results]") {
  for (const bool ordered : {true, false}) {
    lazy<> range({.count = 3000}, {.buffersize = 16, .chunksize = 3, .ordered = ordered});
    std::atomic<bool> stop{false};
    std::vector<std::thread> workers;
    for (int i = 0; i != 2; ++i) {
      workers.emplace_back([&] {
        while (!stop) {
          if (!range.engine->run()) std::this_thread::yield();
        }
      });
    }
    std::vector<int> all = rest_of(range.results);
    stop = true;
    for (std::thread& each : workers) each.join();
    if (!ordered) std::sort(all.begin(), all.end());
    REQUIRE(all.size() == 3000);
    for (int i = 0; i != 3000; ++i) CHECK(all[static_cast<std::size_t>(i)] == i * 10);
  }
}

TEST_CASE("destroying it cancels what has not started and waits for nothing", "[lazy_results][cancel]") {
  const auto engine = std::make_shared<fake_engine>();
  std::optional<fake_engine::entry> running;
  {
    result_range results(engine, std::make_unique<scripted<int>>(script{.count = -1}, std::make_shared<int>(0)),
                         {.buffersize = 5});
    running = engine->take();
    CHECK(engine->waiting() == 4);
  }
  CHECK(engine->waiting() == 0);
  engine->run(*running);  // settles into what nobody reads
  running.reset();

  result_range first(engine, std::make_unique<scripted<int>>(script{.count = 3}, std::make_shared<int>(0)), {});
  result_range other(engine, std::make_unique<scripted<int>>(script{.count = 2}, std::make_shared<int>(0)), {});
  CHECK(engine->waiting() == 5);
  first = std::move(other);
  CHECK(engine->waiting() == 2);
}

TEST_CASE("after close() what was taken is yielded, then one pool_closed, then the end", "[lazy_results][close]") {
  for (const std::size_t chunksize : {1u, 2u, 3u}) {
    lazy<> range({.count = -1}, {.buffersize = 4, .chunksize = chunksize}, run_while_waiting);
    CHECK(range.results.next() == 0);
    range.engine->close();
    for (int i = 1; i != 4; ++i) CHECK(range.results.next() == i * 10);
    CHECK_THROWS_AS(range.results.next(), procpool::pool_closed);
    CHECK_FALSE(range.results.next().has_value());
    CHECK(range.results.begin() == range.results.end());
  }
}

TEST_CASE("after close() a range whose inputs were all taken just ends", "[lazy_results][close]") {
  lazy<> range({.count = 4}, {.buffersize = 4}, run_while_waiting);
  range.engine->close();
  CHECK(rest_of(range.results) == std::vector<int>{0, 10, 20, 30});
}

TEST_CASE("after close() iteration meets pool_closed at an element of its own", "[lazy_results][close]") {
  lazy<> range({.count = -1}, {.buffersize = 2, .ordered = false}, run_while_waiting);
  range.engine->close();
  auto it = range.results.begin();
  CHECK(*it == 0);
  ++it;
  CHECK(*it == 10);
  ++it;
  REQUIRE(it != range.results.end());
  CHECK_THROWS_AS(*it, procpool::pool_closed);
  ++it;
  CHECK(it == range.results.end());
}

TEST_CASE("a range of a closed pool is not made, and takes no input", "[lazy_results][close]") {
  const auto engine = std::make_shared<fake_engine>();
  engine->close();
  for (const int count : {0, 1, -1}) {
    const auto taken = std::make_shared<int>(0);
    CHECK_THROWS_AS(result_range(engine, std::make_unique<scripted<int>>(script{.count = count}, taken), {}),
                    procpool::pool_closed);
    CHECK(*taken == 0);
  }
}

TEST_CASE("a pool closed while the first inputs are taken: what it accepted is yielded", "[lazy_results][close]") {
  int accepted = 0;
  lazy<> range({.count = -1}, {.buffersize = 8}, [&](fake_engine& engine) {
    engine.run_in_help = true;
    engine.on_submit = [&] {
      if (++accepted == 4) engine.close();  // the first was asking whether it is open
    };
  });
  for (int i = 0; i != 3; ++i) CHECK(range.results.next() == i * 10);
  CHECK_THROWS_AS(range.results.next(), procpool::pool_closed);
  CHECK_FALSE(range.results.next().has_value());
}

TEST_CASE("after terminate() unfinished elements throw pool_terminated", "[lazy_results][terminate]") {
  lazy<> range({.count = -1}, {.buffersize = 4});
  range.engine->run(1);
  range.engine->terminate();
  CHECK_THROWS_AS(range.results.next(), procpool::pool_terminated);
  CHECK(range.results.next() == 10);
  CHECK_THROWS_AS(range.results.next(), procpool::pool_terminated);
  CHECK_THROWS_AS(range.results.next(), procpool::pool_terminated);
  CHECK_THROWS_AS(range.results.next(), procpool::pool_closed);
  CHECK_FALSE(range.results.next().has_value());
}

TEST_CASE("it outlives the pool", "[lazy_results]") {
  std::optional<result_range> results;
  {
    auto engine = std::make_shared<fake_engine>();
    results.emplace(engine, std::make_unique<scripted<int>>(script{.count = 2}, std::make_shared<int>(0)),
                    lazy_options{.buffersize = 4});
    while (engine->run()) {
    }
    engine->close();
    engine->join();
  }
  CHECK(rest_of(*results) == std::vector<int>{0, 10});
}

// ---- progress ------------------------------------------------------------------------------------------------------

TEST_CASE("progress counts what has ended; its last call, with the total, comes before the end",
          "[lazy_results][progress]") {
  for (const bool ordered : {true, false}) {
    std::vector<std::pair<std::size_t, std::size_t>> calls;
    const std::thread::id consumer = std::this_thread::get_id();
    bool elsewhere = false;
    lazy<> range({.count = 6, .unencodable = 1},
                 {.buffersize = 3,
                  .ordered = ordered,
                  .progress =
                      [&](std::size_t done, std::size_t total) {
                        elsewhere |= std::this_thread::get_id() != consumer;
                        calls.emplace_back(done, total);
                      }},
                 run_while_waiting);
    int yielded = 0;
    for (;;) {
      try {
        if (!range.results.next()) break;
      } catch (const std::domain_error&) {
      }
      ++yielded;
    }
    CHECK(yielded == 6);
    CHECK_FALSE(elsewhere);
    REQUIRE_FALSE(calls.empty());
    CHECK(calls.back() == std::pair<std::size_t, std::size_t>(6, 6));
    for (std::size_t i = 0; i != calls.size(); ++i) {
      CHECK((calls[i].second == 0 || calls[i].second == 6));
      if (i != 0) CHECK(calls[i - 1].first <= calls[i].first);
      if (i != 0) CHECK(calls[i - 1] != calls[i]);
    }
  }
}

TEST_CASE("progress is reported while the next element is waited for", "[lazy_results][progress]") {
  std::vector<std::size_t> done;
  lazy<> range({.count = 3}, {.buffersize = 4, .progress = [&](std::size_t n, std::size_t) { done.push_back(n); }});
  range.engine->run(2);
  range.engine->run(1);
  CHECK_THROWS_AS(range.results.next(1ms), procpool::timeout_error);
  CHECK(done == std::vector<std::size_t>{2});
  std::thread last([&] { range.engine->run(); });
  CHECK(range.results.next() == 0);
  last.join();
  CHECK(done == std::vector<std::size_t>{2, 3});
}

TEST_CASE("what progress throws comes out, and no element is lost", "[lazy_results][progress]") {
  bool throws = true;
  lazy<> range({.count = 2},
               {.buffersize = 1,
                .progress =
                    [&](std::size_t, std::size_t) {
                      if (std::exchange(throws, false)) throw std::runtime_error("progress");
                    }},
               run_while_waiting);
  CHECK_THROWS_WITH(range.results.next(), "progress");
  CHECK(rest_of(range.results) == std::vector<int>{0, 10});
}

// ---- another process -----------------------------------------------------------------------------------------------

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("in another process it refuses, and cancels nothing when destroyed", "[lazy_results][fork]") {
  auto range = std::make_unique<lazy<>>(script{.count = -1});
  range->engine->run();
  const pid_t child = ::fork();
  if (child == 0) {
    int refused = 0;
    const auto refuses = [&](auto call) {
      try {
        call();
      } catch (const std::logic_error&) {
        ++refused;
      }
    };
    refuses([&] { range->results.begin(); });
    refuses([&] { range->results.next(); });
    refuses([&] { range->results.next(1s); });
    const auto engine = range->engine;
    refuses([&] {
      result_range(engine, std::make_unique<scripted<int>>(script{.count = 1}, std::make_shared<int>(0)), {});
    });
    const std::size_t before = engine->waiting();
    range.reset();
    ::_exit(engine->waiting() == before ? refused : 100);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 4);
  CHECK(range->results.next() == 0);
}
#endif
