// SPDX-License-Identifier: BSL-1.0
// The errors that a lazy range throws: of its elements, of its input, of a pool that was closed or terminated, and in
// another process.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include <procpool/detail/codec/exception_codec.hpp>
#include <procpool/lazy_results.hpp>

#include "fake_engine.hpp"
#include "support/scripted_range.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using support::refuses;

namespace {

reply_kind says_unserializable(call_frame& frame) {
  procpool::detail::encode_failure(
      frame.result, procpool::detail::make_error<procpool::serialization_error>("cause", std::string("type")));
  return reply_kind::unserializable;
}

reply_kind no_such_kind(call_frame&) { return static_cast<reply_kind>(99); }

reply_kind half_a_value(call_frame& frame) {
  frame.result.put('x');
  return reply_kind::value;
}

reply_kind no_room(call_frame&) { return reply_kind::out_of_memory; }

}  // namespace

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

// ---- another process -----------------------------------------------------------------------------------------------

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("in another process it refuses, and cancels nothing when destroyed", "[lazy_results][fork]") {
  auto range = std::make_unique<lazy<>>(script{.count = -1});
  range->engine->run();
  const pid_t child = ::fork();
  if (child == 0) {
    int refused = 0;
    refused += refuses([&] { range->results.begin(); });
    refused += refuses([&] { range->results.next(); });
    refused += refuses([&] { range->results.next(1s); });
    const auto engine = range->engine;
    refused += refuses([&] {
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
