// SPDX-License-Identifier: BSL-1.0
// A lane without a worker, whose half the test writes: whatever stands there, the parent's port takes no reply for good
// that cannot be.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/detail/shared_memory/backed.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>

#include "support/lanes.hpp"

using namespace procpool::detail;
using namespace support;

namespace {

reply_header value_header(std::uint64_t number, std::uint64_t size) {
  return {number, size, 0, static_cast<std::uint32_t>(reply_kind::value), 0};
}
reply_header series_header(std::uint64_t number, std::uint64_t size, std::uint32_t room) {
  return {number, size, 0, static_cast<std::uint32_t>(reply_kind::series), room};
}

/// Where the ring has no memory yet, it gets some.
void write(const reply_header& header, reply_half& replies, std::size_t offset) {
  std::memcpy(replies.ring + offset, &header, sizeof(header));
}

/// Posts an element of `target` for each value.
template <class... Values>
void post(lane_port& port, job& target, std::size_t first, Values... values) {
  chunk what = chunk_of(target, first, values...);
  REQUIRE(port.post(what) == post_result::posted);
}

}  // namespace

TEST_CASE("a size that only a header claims costs no memory", "[malformed_replies]") {
  shared_region region(1);
  std::byte* const arena = reinterpret_cast<std::byte*>(&region.replies(0)) + region_layout::reply_arena;
  constexpr std::size_t mib = std::size_t{1} << 20;
  std::memset(arena, 1, 4 * mib);
  CHECK(backed(arena, 4 * mib));
  CHECK(backed(arena + 100, 4 * mib - 100));
  CHECK_FALSE(backed(arena, region.layout().arena_bytes));
  CHECK_FALSE(backed(arena + 100 * mib, 1));
}

TEST_CASE("replies that cannot be are refused", "[malformed_replies]") {
  idle_job job(double_number);
  lane_without_worker lane;
  auto& [region, port, socket] = lane;
  post(port, job, 0, std::uint64_t{1});
  reply_half& replies = region.replies(0);

  SECTION("published beyond what was posted") {
    replies.published.store(2);
    CHECK_FALSE(port.published(port.settled(), port.last()).has_value());
  }
  SECTION("published backwards") { CHECK_FALSE(port.published(5, 7).has_value()); }
  SECTION("claimed what comes after the next") {
    replies.claimed.store(2);
    CHECK_FALSE(port.published(port.settled(), port.last()).has_value());
    replies.claimed.store(1);
    CHECK(port.published(port.settled(), port.last()) == 0);
  }
  reply_header header = value_header(1, 8);
  SECTION("another number") { header.number = 2; }
  SECTION("an unknown kind") { header.kind = 77; }
  SECTION("kind 0") { header.kind = 0; }
  SECTION("larger than the ring") { header.size = ring_bytes + 1; }
  SECTION("larger than anything") { header.size = ~std::uint64_t{0}; }
  SECTION("where the ring has no memory") { header.size = ring_start; }
  SECTION("in the arena, but before it") { header.arena = 64; }
  SECTION("in the arena, but past its end") { header.arena = region.layout().reply_bytes() + 64; }
  SECTION("in the arena, and longer than it") {
    header.arena = region_layout::reply_arena;
    header.size = region.layout().arena_bytes + 1;
  }
  SECTION("in the arena, and larger than what was ever written there") {
    header.arena = region_layout::reply_arena;
    header.size = region.layout().arena_bytes / 2;
  }
  SECTION("in the arena, misaligned") { header.arena = region_layout::reply_arena + 1; }
  SECTION("wrap upon wrap") { header.number = reply_header::wrap; }
  const auto series_of = [&](std::uint64_t size, std::uint32_t room, std::uint64_t end) {
    header = series_header(1, size, room);
    header.arena = end;
  };
  SECTION("a series of results without a size") { series_of(0, 4, 0); }
  SECTION("a series without room") { series_of(8, 0, 0); }
  SECTION("a series of more results than there may be") { series_of(8, series_bytes / 8 + 1, 0); }
  SECTION("a series of results larger than anything") { series_of(~std::uint64_t{0}, 2, 0); }
  SECTION("a series that has ended before its first element, and nothing behind it") { series_of(8, 4, 1); }
  write(header, replies, 0);
  const bool good = header.number == 1 && header.kind == 1 && header.size == 8 && header.arena == 0;
  CHECK(port.next_reply(1).has_value() == good);
}

TEST_CASE("replies are looked for only where the ring has memory", "[malformed_replies]") {
  idle_job job(double_number);
  lane_without_worker lane;
  auto& [region, port, socket] = lane;
  post(port, job, 0, std::uint64_t{1}, std::uint64_t{2});
  reply_half& replies = region.replies(0);
  write(value_header(1, ring_start - sizeof(reply_header)), replies, 0);
  REQUIRE(port.next_reply(1).has_value());
  CHECK_FALSE(port.next_reply(2).has_value());
  CHECK_FALSE(backed(replies.ring + ring_start, 1));  // nor was memory found for it
  write(value_header(2, 0), replies, ring_start);
  CHECK(port.next_reply(2).has_value());
}

TEST_CASE("a series does not go on behind the ring", "[malformed_replies]") {
  idle_job job(double_number);
  lane_without_worker lane;
  auto& [region, port, socket] = lane;
  reply_half& replies = region.replies(0);
  std::memset(replies.ring, 0, ring_bytes);  // all of it has memory
  const std::size_t behind = 64;             // what is left of the ring
  std::uint64_t number = 0;
  for (std::size_t at = 0; at != ring_bytes - behind;) {
    const std::size_t size = std::min(ring_payload, ring_bytes - behind - at - sizeof(reply_header));
    post(port, job, number, number);
    ++number;
    write(value_header(number, size), replies, at);
    REQUIRE(port.next_reply(number).has_value());
    std::vector<chunk> through;
    port.settle(number, through);
    port.taken(number);
    at += sizeof(reply_header) + size;
  }
  const auto room = GENERATE(as<std::uint32_t>{}, 4, 5);
  post(port, job, number, number);
  ++number;
  write(series_header(number, 8, room), replies, ring_bytes - behind);
  CHECK(port.next_reply(number).has_value() == (room == 4));
}

TEST_CASE("what lies at the start of the ring ends before what has not been taken", "[malformed_replies]") {
  idle_job job(double_number);
  lane_without_worker lane;
  auto& [region, port, socket] = lane;
  post(port, job, 0, std::uint64_t{1}, std::uint64_t{2});
  reply_half& replies = region.replies(0);
  const std::size_t mark = GENERATE(as<std::size_t>{}, 40, 48, 1000);
  write(value_header(1, mark - sizeof(reply_header)), replies, 0);
  REQUIRE(port.next_reply(1).has_value());
  const bool taken = GENERATE(false, true);
  if (taken) port.taken(1);
  write(value_header(reply_header::wrap, 0), replies, mark);
  const std::size_t more = GENERATE(as<std::size_t>{}, 0, 1);
  write(value_header(2, mark - sizeof(reply_header) + more), replies, 0);
  CHECK(port.next_reply(2).has_value() == (taken && more == 0));
}

TEST_CASE("what is being read is not taken back, whatever the worker says by then", "[malformed_replies]") {
  idle_job job(double_number);
  lane_without_worker lane;
  auto& [region, port, socket] = lane;
  post(port, job, 0, std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3}, std::uint64_t{4});
  reply_half& replies = region.replies(0);
  replies.claimed.store(2);
  replies.published.store(2);
  REQUIRE(port.published(port.settled(), port.last()) == 2);
  port.reading(2);

  replies.published.store(0);
  SECTION("that it has started nothing") { replies.claimed.store(0); }
  SECTION("that it runs what it had published") { replies.claimed.store(1); }
  CHECK(port.claimed() == 2);
  CHECK_FALSE(port.running().has_value());
  std::vector<chunk> through;
  port.settle(2, through);
  CHECK(port.outstanding() == 2);
  CHECK(port.claimed() == 2);
}
