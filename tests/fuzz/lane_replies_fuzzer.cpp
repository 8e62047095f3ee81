// SPDX-License-Identifier: BSL-1.0
// The replies in a lane: headers, wraps of the ring, payloads in the ring and in the arena. The worker writes replies
// of any size, honest ones and ones with fields that cannot be, and goes on changing them while they are read. Each
// time, the parent's port must say of a reply what the rules of the layout say, written down here a second time; must
// hand out no byte that lies elsewhere, nor more than there is memory for; and must look at each byte of a header once.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <procpool/detail/shared_memory/lane_port.hpp>

#include "support/hostile_memory.hpp"
#include "support/test_jobs.hpp"

using namespace procpool::detail;
using fuzz::hostile_memory;
using fuzz::require;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t written = 2 * mib;    ///< of the arena: there is memory behind it
constexpr std::size_t no_matter = 1 * mib;  ///< a reply as large as that may be nothing but a claim

struct lane_memory {
  shared_region region{1};
  lane_memory() {
    auto* const half = reinterpret_cast<std::byte*>(&region.replies(0));
    ::madvise(half, region.layout().reply_bytes(), MADV_NOHUGEPAGE);
    std::memset(half + region_layout::reply_arena, 0xa5, written);
    std::memset(region.replies(0).ring, 0, ring_bytes);  // as if it had been written: there is memory for all of it
    hostile_memory::instance().place(half, region.layout().reply_bytes());
  }
};

struct answer {
  reply_kind kind{};
  std::size_t offset = 0;  ///< of the payload, in the half
  std::size_t size = 0;
  bool in_place = false;   ///< in the arena, or in a series
  std::size_t count = 1;   ///< results, one behind the other
  std::uint64_t next = 0;  ///< where the reply behind it begins, or its series, if that may go on
};

class talkative_worker {
 public:
  talkative_worker(lane_memory& memory, fuzz::input& program)
      : region_(memory.region), requests_(region_.requests(0)), replies_(region_.replies(0)), in_(program) {
    hostile_memory::instance().forget_changes();
    std::memset(static_cast<void*>(&replies_), 0, offsetof(reply_half, ring));
    port_.reset(0, registered_fd());
    replies_.state = worker_state::ready;
  }
  ~talkative_worker() {
    std::memset(replies_.ring, 0, std::min<std::size_t>(ring_.head() + cache_line, ring_bytes));
    std::vector<chunk> left;
    port_.take_all(left, left);
  }

  void run() {
    for (int replies = 0; !in_.empty() && believed_ && replies != 120; ++replies) {
      if (port_.outstanding() == unread_) post();
      if (in_.below(4) == 0) {
        write_series();
      } else {
        write_reply();
      }
      if (believed_ && in_.below(4) == 0) collect();
    }
    if (believed_) collect();
  }

 private:
  void post() {
    static fuzz::idle_job job("fuzz", 0);
    inputs_ptr arguments(new inputs);
    const std::size_t count = 1 + in_.below(16);
    for (std::size_t i = 0; i != count; ++i) arguments->end_element();
    chunk what{job_ptr(&job), arguments, 0, 0, count};
    require(port_.post(what) == post_result::posted, "an empty lane has no room");
  }

  // ---- the worker --------------------------------------------------------------------------------------------------

  void write_reply() {
    const std::uint64_t number = port_.settled() + unread_ + 1;
    reply_header header{number, size(), 0, 1 + in_.below(5), 0};
    std::size_t in_ring = sizeof(header);
    if (header.size > ring_payload || in_.below(8) == 0) {
      header.arena = region_layout::reply_arena + payload_alignment * in_.below(100);
      header.size = std::min<std::uint64_t>(header.size, written - payload_alignment * 100);
    } else {
      in_ring += round_up(static_cast<std::size_t>(header.size), alignof(reply_header));
    }
    const auto fits = [&] {
      return ring_.prepare(in_ring, requests_.taken_bytes) && ring_.fits(in_ring, requests_.taken_bytes);
    };
    if (!fits()) {
      collect();
      if (!believed_ || !fits()) return;
      if (port_.empty()) post();
      header.number = port_.settled() + unread_ + 1;
    }
    write(header, in_ring);
    publish(1);
  }

  /// Results of several elements, fewer than it has room for, or none before the next reply.
  void write_series() {
    const std::uint64_t number = port_.settled() + unread_ + 1;
    const std::uint64_t size = 1 + in_.below(64);
    const std::uint64_t room = 1 + in_.byte() % (series_bytes / size);
    const std::size_t in_ring = sizeof(reply_header) + round_up(static_cast<std::size_t>(room * size), 8);
    if (!ring_.prepare(in_ring, requests_.taken_bytes) || !ring_.fits(in_ring, requests_.taken_bytes)) return;
    const std::size_t at = write(
        {number, size, 0, static_cast<std::uint32_t>(reply_kind::series), static_cast<std::uint32_t>(room)}, in_ring);
    const std::uint64_t possible = std::min<std::uint64_t>(room, port_.outstanding() - unread_);
    const std::uint64_t count = in_.below(static_cast<std::uint32_t>(possible + 1));
    for (std::uint64_t done = 0; done != count; ++done) {
      publish(1);
      if (believed_ && in_.below(8) == 0) collect();
    }
    if (count != room) end_of_series(replies_.ring + at).store(number + count);
  }

  /// Where the header has come to lie in the ring.
  std::size_t write(const reply_header& header, std::size_t in_ring) {
    const std::uint64_t before = ring_.head();
    const std::uint64_t at = ring_.place(in_ring);
    if (at - before >= sizeof(header)) {
      const reply_header wrap{reply_header::wrap, 0, 0, 0, 0};
      std::memcpy(replies_.ring + before % ring_bytes, &wrap, sizeof(wrap));
    }
    std::byte* const where = replies_.ring + at % ring_bytes;
    std::memset(where, static_cast<int>(header.number), in_ring);
    std::memcpy(where, &header, sizeof(header));
    if (in_.below(4) == 0) corrupt(at % ring_bytes);
    return at % ring_bytes;
  }

  void publish(std::size_t count) {
    unread_ += count;
    replies_.claimed = replies_.published = port_.settled() + unread_;
  }

  std::uint64_t size() {
    const std::uint32_t how = in_.below(8);
    const std::uint64_t some = in_.byte();
    switch (how) {
      case 0:
        return ring_payload - some;
      case 1:
        return some * 128;
      case 2:
        return ring_payload + some;
      case 3:
        return some * 8192;
      default:
        return some;
    }
  }

  /// A field of the header, or of what lies around it, now or while it is read.
  void corrupt(std::size_t header) {
    const std::size_t offset = (header + 8 * in_.below(5)) % ring_bytes;
    const std::size_t width = in_.below(2) == 0 ? 8 : 4;
    const std::uint64_t value = interesting();
    const std::size_t in_half = std::min(offsetof(reply_half, ring) + offset, sizeof(reply_half) - width);
    if (in_.below(2) == 0) {
      std::memcpy(reinterpret_cast<std::byte*>(&replies_) + in_half, &value, width);
    } else {
      hostile_memory::instance().change_at(1 + in_.below(64), in_half, value, width);
    }
  }

  std::uint64_t interesting() {
    const std::uint64_t arena = region_layout::reply_arena;
    const std::uint64_t end = region_.layout().reply_bytes();
    const std::uint64_t some = in_.byte();
    switch (in_.below(10)) {
      case 0:
        return reply_header::wrap - some % 2;
      case 1:
        return port_.settled() + unread_ + some % 4;
      case 2:
        return arena + 8 * some;
      case 3:
        return arena - some;
      case 4:
        return end - 64 * (some % 4);
      case 5:
        return written - some;
      case 6:
        return written + some;
      case 7:
        return end - arena + some;
      case 8:
        return std::uint64_t{1} << some % 64;
      default:
        return in_.odd_number(ring_payload);
    }
  }

  // ---- the parent --------------------------------------------------------------------------------------------------

  struct open_series {
    std::uint64_t position;  ///< of its header
    std::uint64_t first;
    std::uint64_t room;
    std::uint64_t size;
  };

  /// The results of the open series from `number` on.
  std::optional<answer> judge_series(std::uint64_t number, std::uint64_t most) {
    std::uint64_t end = 0;
    std::memcpy(&end, replies_.ring + series_->position % ring_bytes + offsetof(reply_header, arena), sizeof(end));
    const std::uint64_t full = series_->first + series_->room;
    if (end == 0 || end > full) end = full;
    if (number >= end) return std::nullopt;
    answer is;
    is.kind = reply_kind::value;
    is.in_place = true;
    is.size = series_->size;
    is.count = std::min(most, end - number);
    is.offset = offsetof(reply_half, ring) + series_->position % ring_bytes + sizeof(reply_header) +
                (number - series_->first) * series_->size;
    is.next = series_->position;
    if (number + is.count == full) is.next = leave_series();
    return is;
  }
  /// Where the next reply lies.
  std::uint64_t leave_series() {
    const std::uint64_t next =
        series_->position + sizeof(reply_header) + round_up(series_->room * series_->size, alignof(reply_header));
    series_.reset();
    return next;
  }

  /// What the layout says of the reply at a position, as its bytes are now.
  std::optional<answer> judge(std::uint64_t position, std::uint64_t number, std::uint64_t most) {
    for (int ended = 0; ended != 3; ++ended) {
      if (!series_) {
        const auto single = judge_single(position, number);
        if (!series_) return single;
      }
      if (const auto is = judge_series(number, most)) return is;
      position = leave_series();
    }
    return std::nullopt;
  }

  /// Of a series only that it begins.
  std::optional<answer> judge_single(std::uint64_t position, std::uint64_t number) {
    reply_header header;
    for (bool wrapped = false;; wrapped = true) {
      const std::size_t offset = position % ring_bytes;
      if (offset + sizeof(header) <= ring_bytes) {
        std::memcpy(&header, replies_.ring + offset, sizeof(header));
        if (header.number != reply_header::wrap) break;
      }
      if (wrapped || offset == 0) return std::nullopt;
      position = (position / ring_bytes + 1) * ring_bytes;
      if (position + sizeof(header) > requests_.taken_bytes + ring_bytes) return std::nullopt;
    }
    if (header.number != number || header.kind < 1 || header.kind > 6) return std::nullopt;
    if (header.kind == 6) {
      if (header.size > 0 && header.size <= series_bytes && header.room > 0 &&
          header.room * header.size <= series_bytes &&
          position + sizeof(header) + header.room * header.size <= requests_.taken_bytes + ring_bytes &&
          position % ring_bytes + sizeof(header) + header.room * header.size <= ring_bytes) {
        series_ = {position, number, header.room, header.size};
      }
      return std::nullopt;
    }
    answer is;
    is.kind = static_cast<reply_kind>(header.kind);
    is.size = header.size;
    const std::uint64_t room = region_.layout().reply_bytes();
    if (header.arena != 0) {
      if (header.arena < region_layout::reply_arena || header.arena % 64 != 0 || header.arena > room)
        return std::nullopt;
      if (header.size > room || header.arena + header.size > room) return std::nullopt;
      if (header.size > no_matter &&
          header.arena + header.size > round_up(region_layout::reply_arena + written, lane_page)) {
        return std::nullopt;
      }
      is.in_place = true;
      is.offset = header.arena;
      is.next = position + sizeof(header);
      return is;
    }
    if (header.size > ring_payload || position % ring_bytes + sizeof(header) + header.size > ring_bytes ||
        position + sizeof(header) + header.size > requests_.taken_bytes + ring_bytes) {
      return std::nullopt;
    }
    is.offset = offsetof(reply_half, ring) + position % ring_bytes + sizeof(header);
    is.next = position + sizeof(header) + round_up(is.size, alignof(reply_header));
    return is;
  }

  void collect() {
    const std::uint64_t settled = port_.settled();
    const auto published = port_.published(settled, port_.last());
    require(published == settled + unread_, "what was published in order is not seen");
    std::uint64_t position = requests_.taken_bytes;
    std::uint64_t number = settled;
    while (number != *published) {
      const auto expected = judge(position, number + 1, *published - number);
      const std::uint64_t changes = hostile_memory::instance().changes_made();
      std::optional<lane_port::worker_reply> got;
      {
        const hostile_memory::watching here;
        const hostile_memory::each_byte_once once;
        got = port_.next_reply(number + 1, *published - number);
      }
      const bool unchanged = hostile_memory::instance().changes_made() == changes;
      if (unchanged) require(got.has_value() == expected.has_value(), "a reply is judged otherwise than it should be");
      if (!got) {
        believed_ = false;
        break;
      }
      check(*got);
      if (unchanged) compare(*got, *expected);
      if (!unchanged) {  // where it goes on depends on what it saw
        believed_ = false;
        break;
      }
      position = expected->next;
      number += got->count;
    }
    std::vector<chunk> through;
    port_.settle(number, through);
    if (!believed_) return;
    port_.taken(number);
    require(requests_.taken_bytes == position, "the ring is not read up to where it should be");
    unread_ = 0;
  }

  void check(const lane_port::worker_reply& got) {
    require(got.kind >= reply_kind::value && got.kind <= reply_kind::out_of_memory, "a reply of no kind");
    const auto* const half = reinterpret_cast<const std::byte*>(&replies_);
    const std::size_t all = region_.layout().reply_bytes();
    if (got.stable) {
      require(got.size <= ring_payload, "a small reply that is large");
      require(got.size == 0 || got.data + got.size <= half || got.data >= half + all,
              "a private copy in shared memory");
    } else {
      const std::byte* const end = got.data + got.size * got.count;
      if (got.data < half + region_layout::reply_arena) {
        require(got.data >= replies_.ring && end <= replies_.ring + ring_bytes, "results outside of the ring");
      } else {
        require(got.data <= half + all && got.size <= static_cast<std::size_t>(half + all - got.data) && got.count == 1,
                "a payload outside of its arena");
      }
      require(got.size <= no_matter ||
                  got.data + got.size <= half + round_up(region_layout::reply_arena + written, lane_page),
              "a payload larger than the memory behind it");
    }
    // Elsewhere there is no memory, and to read would make some.
    if (!got.stable && got.data + got.size > half + region_layout::reply_arena + written) return;
    sum_ += got.size == 0 ? 0U : static_cast<unsigned>(got.data[0]) + static_cast<unsigned>(got.data[got.size - 1]);
  }

  void compare(const lane_port::worker_reply& got, const answer& expected) {
    const auto* const half = reinterpret_cast<const std::byte*>(&replies_);
    require(got.kind == expected.kind && got.size == expected.size && got.stable == !expected.in_place &&
                got.count == expected.count,
            "a reply is not what its header says");
    if (expected.in_place) {
      require(got.data == half + expected.offset, "a payload is not where its header says");
    } else {
      require(std::memcmp(got.data, half + expected.offset, got.size) == 0,
              "a payload is not what lies behind its header");
    }
  }

  shared_region& region_;
  request_half& requests_;
  reply_half& replies_;
  fuzz::input& in_;
  lane_port port_{region_, 0};
  ring_writer ring_{replies_.ring};
  std::optional<open_series> series_;  ///< that the parent has begun to read
  std::size_t unread_ = 0;
  bool believed_ = true;
  volatile unsigned sum_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static lane_memory memory;
  fuzz::input program(data, size);
  talkative_worker(memory, program).run();
  return 0;
}
