// SPDX-License-Identifier: BSL-1.0
// A lane with both ends in this process: the parent's port in the test's thread, the worker's loop in another. What a
// race detector cannot see between processes it sees here.
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/detail/codec/call.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>
#include <procpool/detail/shared_memory/worker_arrays.hpp>
#include <procpool/detail/shared_memory/worker_loop.hpp>

#include "support/lanes.hpp"
#include "support/processes.hpp"

using namespace procpool::detail;
using namespace support;

namespace {

/// Its argument is a number of bytes to answer with.
reply_kind fill(call_frame& frame) {
  const auto size = frame.arguments.get<std::uint64_t>();
  std::memset(frame.result.extend(size), static_cast<int>(size % 251), size);
  return reply_kind::value;
}

std::uint64_t twice_but_for_sevens(std::uint64_t x) {
  if (x % 7 == 0) throw std::invalid_argument("a seven");
  return 2 * x;
}

/// Its elements run as series.
class series_job final : public idle_job {
 public:
  using calling = call<std::uint64_t (*)(std::uint64_t), std::uint64_t>;
  static_assert(calling::series_size == sizeof(std::uint64_t));

  explicit series_job(std::uint64_t (*task)(std::uint64_t)) : idle_job(&calling::code) {
    calling::encode_callable(callable, task);
    series_size = calling::series_size;
  }
};

reply_kind fails_on_odd(call_frame& frame) {
  return frame.arguments.get<std::uint64_t>() % 2 == 1 ? reply_kind::exception : reply_kind::value;
}

/// Argument: the addresses of two flags of this process. Says that it runs, then waits to be let go.
reply_kind waits(call_frame& frame) {
  auto* started = frame.arguments.get<std::atomic<bool>*>();
  auto* go = frame.arguments.get<std::atomic<bool>*>();
  started->store(true);
  while (!go->load()) std::this_thread::yield();
  return reply_kind::value;
}

chunk chunk_of_range(job& target, std::uint64_t first, std::uint64_t count) {
  inputs_ptr arguments(new inputs);
  for (std::uint64_t i = 0; i != count; ++i) {
    arguments->bytes.put(first + i);
    arguments->end_element();
  }
  return {job_ptr(&target), arguments, 0, first, count};
}

/// One element of a job that runs `waits`.
chunk waiting_chunk(job& target, std::atomic<bool>& started, std::atomic<bool>& go) {
  inputs_ptr addresses(new inputs);
  addresses->bytes.put(&started);
  addresses->bytes.put(&go);
  addresses->end_element();
  return {job_ptr(&target), addresses, 0, 0, 1};
}

/// A lane and a thread that plays its worker, from construction until the lane is told to leave.
class lane_under_test {
 public:
  ~lane_under_test() {
    port.leave();
    port.wake();
    worker_.join();
  }

  void post(chunk what) {
    REQUIRE(port.post(what) == post_result::posted);
    port.wake();
  }

  /// Waits for the next reply, or those of up to `most` elements; good until the one after it.
  lane_port::worker_reply next(std::uint64_t most = 1) {
    const std::uint64_t number = port.settled() + 1;
    std::uint64_t published;
    while ((published = *port.published(port.settled(), port.last())) < number) std::this_thread::yield();
    const auto answer = port.next_reply(number, std::min(most, published - number + 1));
    REQUIRE(answer.has_value());
    return *answer;
  }
  void settle_next(std::uint64_t count = 1) {
    const std::uint64_t number = port.settled() + count;
    std::vector<chunk> through;
    port.settle(number, through);
    port.taken(number);
  }
  std::uint64_t next_value() {
    const auto answer = next();
    REQUIRE(answer.kind == reply_kind::value);
    REQUIRE(answer.size == sizeof(std::uint64_t));
    std::uint64_t value;
    std::memcpy(&value, answer.data, sizeof(value));
    settle_next();
    return value;
  }

 private:
  lane_without_worker lane_;

 public:
  worker_bells bells;
  lane_port& port = lane_.port;

 private:
  std::thread worker_{[this] {
    shared_region& region = lane_.region;
    worker_loop loop(region.requests(0), region.replies(0), region.layout().arena_bytes, lane_.worker_socket.get(),
                     bells);
    loop.run();
  }};
};

bool rung(const doorbell& bell, int milliseconds) {
  pollfd wanted{bell.fd(), POLLIN, 0};
  return ::poll(&wanted, 1, milliseconds) == 1;
}

}  // namespace

TEST_CASE("a worker rings for whom it is told to, once", "[lane]") {
  idle_job job(double_number);
  lane_under_test lane;
  auto run = [&, i = std::uint64_t{0}]() mutable {
    lane.post(chunk_of(job, i, i));
    CHECK(lane.next_value() == 2 * i);
    ++i;
  };
  run();
  lane.port.set_sleeping(7);
  run();
  CHECK(rung(lane.bells.leader, 10'000));
  CHECK(!rung(lane.bells.collector, 0));
  lane.bells.leader.answer();
  run();  // in the same turn
  lane.port.set_sleeping(8);
  run();
  CHECK(rung(lane.bells.collector, 10'000));
  CHECK(!rung(lane.bells.leader, 0));
}

TEST_CASE("a lane answers single tasks in order", "[lane]") {
  idle_job job(double_number);
  lane_under_test lane;
  for (std::uint64_t i = 0; i != 5000; ++i) {
    lane.post(chunk_of(job, i, i));
    CHECK(lane.next_value() == 2 * i);
  }
}

TEST_CASE("a lane holds chunks that are posted ahead, and goes round its rings", "[lane]") {
  idle_job job(double_number);
  lane_under_test lane;
  std::uint64_t posted = 0;
  std::uint64_t answered = 0;
  constexpr std::uint64_t chunks = 3000;
  constexpr std::uint64_t each = 37;
  while (answered != chunks * each) {
    while (posted != chunks) {
      chunk next = chunk_of_range(job, posted * each, each);
      if (lane.port.post(next) == post_result::full) break;
      ++posted;
    }
    lane.port.wake();
    REQUIRE(lane.next_value() == 2 * answered);
    ++answered;
  }
  CHECK(lane.port.empty());
}

TEST_CASE("a lane answers a chunk in series, and goes round its ring", "[lane]") {
  series_job job([](std::uint64_t x) { return 2 * x; });
  job.awaited_together = GENERATE(false, true);
  lane_under_test lane;
  std::size_t together = 0;
  std::uint64_t answered = 0;
  for (std::uint64_t count = 1; count < 100'000; count *= 3) {
    const std::uint64_t first = answered;
    lane.post(chunk_of_range(job, first, count));
    while (answered != first + count) {
      const auto answer = lane.next(first + count - answered);
      REQUIRE(answer.kind == reply_kind::value);
      REQUIRE(answer.size == sizeof(std::uint64_t));
      for (std::size_t i = 0; i != answer.count; ++i) {
        std::uint64_t value;
        std::memcpy(&value, answer.data + i * answer.size, sizeof(value));
        REQUIRE(value == 2 * answered++);
      }
      if (answer.count > 1) ++together;
      lane.settle_next(answer.count);
    }
  }
  CHECK(together > 0);
}

TEST_CASE("an element that fails ends its series, and the next ones run", "[lane]") {
  series_job job(twice_but_for_sevens);
  lane_under_test lane;
  lane.post(chunk_of_range(job, 0, 100));
  for (std::uint64_t x = 0; x != 100; ++x) {
    const auto answer = lane.next();
    REQUIRE(answer.kind == (x % 7 == 0 ? reply_kind::exception : reply_kind::value));
    if (x % 7 != 0) {
      std::uint64_t value;
      std::memcpy(&value, answer.data, sizeof(value));
      REQUIRE(value == 2 * x);
    }
    lane.settle_next();
  }
  CHECK(lane.port.empty());
}

TEST_CASE("elements of different sizes in one chunk find their own arguments", "[lane]") {
  idle_job job(fill);
  lane_under_test lane;
  inputs_ptr arguments(new inputs);
  for (std::uint64_t i = 0; i != 50; ++i) {
    arguments->bytes.put(i);
    arguments->bytes.extend(i);  // bytes that the task does not read
    arguments->end_element();
  }
  lane.post({job_ptr(&job), arguments, 0, 0, 50});
  for (std::uint64_t i = 0; i != 50; ++i) {
    CHECK(lane.next().size == i);
    lane.settle_next();
  }
}

TEST_CASE("results around every limit of ring and arena arrive whole", "[lane]") {
  idle_job job(fill);
  lane_under_test lane;
  const std::uint64_t kib = 1024;
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, 32 * kib - 1, 32 * kib, 32 * kib + 1, 256 * kib,
                                   1024 * kib - 1, 1024 * kib, 5000 * kib}) {
    lane.post(chunk_of(job, 0, size));
    const auto answer = lane.next();
    REQUIRE(answer.size == size);
    for (std::size_t i = 0; i < size; i += 97) REQUIRE(answer.data[i] == static_cast<std::byte>(size % 251));
    lane.settle_next();
  }
}

TEST_CASE("a worker with a full ring waits until its replies are taken", "[lane]") {
  idle_job job(fill);
  lane_under_test lane;
  constexpr std::uint64_t size = 20 * 1024;
  constexpr std::uint64_t count = 200;  // more than a ring holds
  inputs_ptr arguments(new inputs);
  for (std::uint64_t i = 0; i != count; ++i) {
    arguments->bytes.put(size);
    arguments->end_element();
  }
  lane.post({job_ptr(&job), arguments, 0, 0, count});
  for (std::uint64_t i = 0; i != count; ++i) {
    CHECK(lane.next().size == size);
    lane.settle_next();
  }
}

TEST_CASE("elements that have not started are taken back, and their numbers are used again", "[lane]") {
  idle_job blocking(waits);
  idle_job job(double_number);
  std::atomic<bool> started = false;
  std::atomic<bool> go = false;
  lane_under_test lane;
  lane.post(waiting_chunk(blocking, started, go));
  while (!started.load()) std::this_thread::yield();
  lane.post(chunk_of_range(job, 100, 10));
  lane.post(chunk_of_range(job, 200, 10));

  std::vector<chunk> back;
  CHECK_FALSE(lane.port.take_back(0, back));  // number 1 has started
  CHECK(back.empty());
  REQUIRE(lane.port.take_back(5, back));  // from the middle of the first chunk on
  REQUIRE(back.size() == 2);
  CHECK(back[0].first == 104);
  CHECK(back[0].count == 6);
  CHECK(back[1].first == 200);
  CHECK(back[1].count == 10);
  CHECK(lane.port.last() == 5);

  lane.post(chunk_of_range(job, 300, 3));
  go.store(true);
  CHECK(lane.next().kind == reply_kind::value);
  lane.settle_next();
  for (const unsigned x : {100U, 101U, 102U, 103U, 300U, 301U, 302U}) CHECK(lane.next_value() == 2 * x);
  CHECK(lane.port.empty());
}

TEST_CASE("every element is run here or taken back, never both, however the two race", "[lane]") {
  idle_job job(double_number);
  lane_under_test lane;
  std::uint64_t next = 0;
  std::uint64_t ran = 0;
  std::uint64_t taken = 0;
  std::vector<std::uint64_t> expected;  // what is posted, in order
  for (int round = 0; round != 3000; ++round) {
    lane.post(chunk_of_range(job, next, 8));
    for (std::uint64_t i = 0; i != 8; ++i) expected.push_back(next + i);
    next += 8;
    std::vector<chunk> back;
    const std::uint64_t keep = lane.port.last() - 1 - static_cast<std::uint64_t>(round) % 8;
    if (lane.port.take_back(keep, back)) {
      for (const chunk& each : back) {
        taken += each.count;
        expected.resize(expected.size() - each.count);
      }
    }
    lane.port.wake();  // the worker may have stepped back from a limit that was restored
    if (round % 4 == 3) {
      for (const std::uint64_t x : expected) REQUIRE(lane.next_value() == 2 * x);
      ran += expected.size();
      expected.clear();
    }
  }
  CHECK(ran + taken == next);
  CHECK(taken != 0);
}

TEST_CASE("elements behind a failed one of their job are skipped, those of other jobs are not", "[lane]") {
  idle_job failing(fails_on_odd);
  failing.stop_on_failure = true;
  idle_job other(fails_on_odd);
  lane_under_test lane;
  lane.post(chunk_of_range(failing, 0, 4));
  lane.post(chunk_of_range(other, 0, 4));
  lane.post(chunk_of_range(failing, 4, 2));
  using enum reply_kind;
  for (const reply_kind kind :
       {value, exception, skipped, skipped, value, exception, value, exception, skipped, skipped}) {
    CHECK(lane.next().kind == kind);
    lane.settle_next();
  }
}

TEST_CASE("what a chunk needs and an empty lane does not have is told apart from what it does not have now", "[lane]") {
  idle_job blocking(waits);
  idle_job job(double_number);
  std::atomic<bool> started = false;
  std::atomic<bool> go = false;
  lane_under_test lane;
  lane.post(waiting_chunk(blocking, started, go));
  std::uint64_t posted = 0;
  for (;; ++posted) {
    chunk next = chunk_of(job, posted, posted);
    if (lane.port.post(next) == post_result::full) break;
  }
  CHECK(posted >= 100);
  go.store(true);
  CHECK(lane.next().kind == reply_kind::value);
  lane.settle_next();
  for (std::uint64_t i = 0; i != posted; ++i) CHECK(lane.next_value() == 2 * i);
}

TEST_CASE("a worker that is slow to take arrays in is not taken for one that never has room", "[lane]") {
  idle_job job(double_number);
  lane_without_worker lane;
  auto& [region, port, socket] = lane;
  const auto post = [&] {
    inputs_ptr arguments(new inputs);
    arguments->bytes.put(std::uint64_t{1});
    arguments->bytes.attach(array_block::create(1));
    arguments->end_element();
    chunk what{job_ptr(&job), arguments, 0, 0, 1};
    return port.post(what);
  };
  std::vector<chunk> through;
  while (post() == post_result::posted) port.settle(port.last(), through);  // nobody reads what is sent
  int full = 0;
  for (int i = 0; i != 1000; ++i) full += post() == post_result::full ? 1 : 0;
  CHECK(full == 1000);
}

TEST_CASE("what was sent for a chunk that is not posted after all is let go", "[lane]") {
  idle_job job(double_number);
  lane_without_worker lane;
  auto& [region, port, socket] = lane;
  worker_arrays worker(socket.get(), region.requests(0));
  inputs_ptr arguments(new inputs);
  arguments->bytes.put(std::uint64_t{1});
  for (std::size_t i = 0; i != most_kept_arrays + most_descriptors + 1; ++i)
    arguments->bytes.attach(array_block::create(1));
  arguments->end_element();
  // Room for one message, where two are to be sent.
  attachment_message message{};
  while (send_message(port.socket(), message, {}, MSG_DONTWAIT)) {
  }
  REQUIRE(receive_message(socket.get(), message, [](unique_fd) {}) == received::message);
  const auto descriptors = [] { return names_in("/proc/self/fd").size(); };
  const std::size_t before = descriptors();
  chunk what{job_ptr(&job), arguments, 0, 0, 1};
  CHECK(port.post(what) == post_result::full);
  CHECK(worker.take(arguments->bytes.attachments().back()->identity()) == nullptr);  // takes in what was sent
  CHECK(descriptors() >= before + 100);
  worker.hear();
  CHECK(descriptors() == before);
}
