// SPDX-License-Identifier: BSL-1.0
// How many elements travel together.
#include <chrono>
#include <cstddef>

#include <catch2/catch.hpp>

#include <procpool/detail/chunk_pace.hpp>
#include <procpool/detail/encode_inputs.hpp>

using namespace procpool::detail;

TEST_CASE("left open, a range makes about four chunks for each worker", "[chunks]") {
  CHECK(chunk_sizes{.processes = 2}.of(1000) == 125);
  CHECK(chunk_sizes{.processes = 2}.of(1001) == 126);
  CHECK(chunk_sizes{.processes = 2}.of(7) == 1);
  CHECK(chunk_sizes{.processes = 64}.of(0) == 1);
}

TEST_CASE("a chunksize is kept to", "[chunks]") {
  CHECK(chunk_sizes{.asked = 1, .processes = 2}.of(1'000'000) == 1);
  CHECK(chunk_sizes{.asked = 3000, .processes = 2}.of(10) == 3000);
}

TEST_CASE("tiny elements travel together all the same, as long as each worker has some", "[chunks]") {
  CHECK(chunk_sizes{.asked = 1, .processes = 2, .together = 1000}.of(1'000'000) == 1000);
  CHECK(chunk_sizes{.asked = 1, .processes = 2, .together = 1000}.of(80) == 10);
  CHECK(chunk_sizes{.asked = 30, .processes = 2, .together = 1000}.of(80) == 30);
  CHECK(chunk_sizes{.asked = 1, .processes = 2, .together = 1000}.of(3) == 1);
}

TEST_CASE("so many are tiny elements that their arguments fill a block", "[chunks]") {
  CHECK(elements_together(0) == block_elements);
  CHECK(elements_together(1) == block_elements);
  CHECK(elements_together(64) == block_bytes / 64);
  CHECK(elements_together(block_bytes) == 1);
  CHECK(elements_together(10 * block_bytes) == 1);
}

TEST_CASE("chunks of what is yielded fast grow, and shrink at once when it is slow", "[chunks]") {
  chunk_pace pace(3, 20);
  CHECK(pace.size() == 3);
  steady_time now{};
  std::size_t yielded = 0;
  const auto yield = [&](std::size_t count, steady_time::duration each) {
    yielded += count;
    now += count * each;
    pace.adapt(yielded, [&] { return now; });
    return pace.size();
  };
  const auto fast = chunk_pace::slow - std::chrono::nanoseconds(1);
  CHECK(yield(1, fast) == 6);
  CHECK(yield(1000, fast) == 12);
  CHECK(yield(1, fast) == 20);
  CHECK(yield(1, fast) == 20);
  CHECK(yield(5, chunk_pace::slow) == 3);
  CHECK(yield(5, chunk_pace::slow) == 3);
  CHECK(yield(5, fast) == 6);
}

TEST_CASE("chunks that cannot grow ask for no time", "[chunks]") {
  for (chunk_pace pace : {chunk_pace(4, 4), chunk_pace(4, 1)}) {
    pace.adapt(100, [] {
      FAIL("asked");
      return steady_time{};
    });
    CHECK(pace.size() == 4);
  }
}
