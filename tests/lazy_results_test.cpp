// SPDX-License-Identifier: BSL-1.0
// What a lazy range yields, in which order, how much input it takes for it, and what it tells of its progress.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include <catch2/catch.hpp>

#include <procpool/detail/codec/encode.hpp>
#include <procpool/lazy_results.hpp>

#include "fake_engine.hpp"
#include "support/sanitizers.hpp"
#include "support/scripted_range.hpp"

using namespace std::chrono_literals;

namespace {

reply_kind boxed(call_frame& frame) {
  procpool::detail::encode(frame.result, std::make_unique<int>(frame.arguments.get<int>() * 10));
  return reply_kind::value;
}

reply_kind nothing(call_frame& frame) {
  frame.arguments.get<int>();
  return reply_kind::value;
}

reply_kind add_callable(call_frame& frame) {
  frame.result.put(frame.callable.get<int>() + frame.arguments.get<int>());
  return reply_kind::value;
}

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
  lazy<> tiny({.count = -1, .together = 1000}, {.chunksize = 1});
  CHECK(*tiny.taken > *plain.taken);
  CHECK(*tiny.taken <= 16 * 2);
  lazy<> huge({.count = 3}, {.chunksize = static_cast<std::size_t>(-1)}, run_while_waiting);
  CHECK(rest_of(huge.results) == std::vector<int>{0, 10, 20});
  lazy<> unbounded({.count = 3}, {.buffersize = static_cast<std::size_t>(-1)}, run_while_waiting);
  CHECK(rest_of(unbounded.results) == std::vector<int>{0, 10, 20});
}

TEST_CASE("tiny inputs that are yielded fast travel together, a part of the buffer at a time",
          "[lazy_results][chunksize]") {
  lazy<> range({.count = -1, .together = 1000}, {.buffersize = 80, .chunksize = 1}, run_while_waiting);
  int yielded = 0;
  bool good = true;  // a CHECK for each would be slow
  for (const int each : range.results) {
    if (each != yielded++ * 10 || *range.taken > yielded + 80) good = false;
    if (yielded == 100'000) break;
  }
  CHECK(good);
  const auto [least, most] = std::ranges::minmax(range.engine->chunk_sizes);
  CHECK(least == 1);                                              // at first
#if !defined(PROCPOOL_TEST_ASAN) && !defined(PROCPOOL_TEST_TSAN)  // which may be slow
  CHECK(most > 1);
#endif
  CHECK(most <= 80 / (4 * range.engine->processes()));
}

TEST_CASE("tiny inputs that are yielded slowly travel by the chunksize", "[lazy_results][chunksize]") {
  lazy<> range({.count = 50, .together = 1000}, {.buffersize = 80, .chunksize = 2}, run_while_waiting);
  for ([[maybe_unused]] const int each : range.results) {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < 100us) {
    }
  }
  CHECK(range.engine->chunk_sizes == std::vector<std::size_t>(25, 2));
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
