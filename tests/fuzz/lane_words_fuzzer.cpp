// SPDX-License-Identifier: BSL-1.0
// A lane whose worker is hostile: the parent's real port with chunks posted, and an input that says what either side
// does next. The worker may be honest for a while, write any word of its half, now or just before some later fetch of
// the parent's, and die. What the scheduler does with a lane is done here as it does it. Beside it stands an account of
// which element is where, and after each step the two agree: every element ends once, in the lane's order, and nothing
// that was taken back, or has ended, comes out again.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
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

/// The lane's memory, made once, and as new for every worker.
class lane_memory {
 public:
  shared_region region{1};

  lane_memory() { hostile_memory::instance().place(&region.replies(0), region.layout().reply_bytes()); }

  void touch(std::size_t offset, std::size_t size) {
    for (std::size_t page = offset / lane_page; page <= (offset + size - 1) / lane_page; ++page) touched_[page] = true;
  }
  void clear() {
    hostile_memory::instance().forget_changes();
    touched_[0] = true;
    for (std::size_t page = 0; page != std::size(touched_); ++page) {
      if (!std::exchange(touched_[page], false)) continue;
      std::memset(reinterpret_cast<std::byte*>(&region.replies(0)) + page * lane_page, 0, lane_page);
    }
  }

 private:
  bool touched_[region_layout::reply_arena / lane_page]{};
};

class lane_under_attack {
 public:
  lane_under_attack(lane_memory& memory, fuzz::input& program)
      : memory_(memory),
        region_(memory.region),
        requests_(region_.requests(0)),
        replies_(region_.replies(0)),
        in_(program) {
    start_worker();
  }

  void run() {
    for (int steps = 0; !in_.empty() && steps != 200; ++steps) step();
    die();
    require(waiting_.size() + ended_ == elements_, "an element is nowhere");
  }

 private:
  // ---- what the input can ask for ----------------------------------------------------------------------------------

  void step() {
    switch (in_.below(12)) {
      case 0:
      case 1:
        return post();
      case 2:
        return take_back();
      case 3:
      case 4:
        return collect();
      case 5:
        return die();
      case 6:
      case 7:
        return work();
      case 8:
        return scribble(std::nullopt);
      case 9:
        return scribble(1 + in_.below(24));
      case 10:
        return look();
      default:
        return repost();
    }
  }

  // ---- the worker --------------------------------------------------------------------------------------------------

  void start_worker() {
    memory_.clear();
    port_.reset(generation_++, registered_fd());
    // As worker_loop's constructor.
    replies_.claimed = replies_.published = published_ = port_.last();
    replies_.state = worker_state::ready;
    ring_ = ring_writer(replies_.ring);
    honest_ = true;
  }

  /// Runs its next element as it should.
  void work() {
    if (requests_.limit < published_ + 1) return;
    const std::uint64_t number = ++published_;
    replies_.claimed = number;
    const std::size_t room = sizeof(reply_header) + sizeof(std::uint64_t);
    if (!ring_.prepare(room, requests_.taken_bytes) || !ring_.fits(room, requests_.taken_bytes)) return;
    const std::uint64_t before = ring_.head();
    const std::uint64_t at = ring_.place(room);
    if (at - before >= sizeof(reply_header)) {
      const reply_header wrap{reply_header::wrap, 0, 0, 0, 0};
      write(offsetof(reply_half, ring) + before % ring_bytes, &wrap, sizeof(wrap));
    }
    const reply_header header{number, sizeof(std::uint64_t), 0, 1 + in_.below(5), 0};
    const std::uint64_t settled = port_.settled();
    const std::uint64_t id = number > settled && number - settled <= lane_.size() ? lane_[number - settled - 1] : 0;
    write(offsetof(reply_half, ring) + at % ring_bytes, &header, sizeof(header));
    write(offsetof(reply_half, ring) + at % ring_bytes + sizeof(header), &id, sizeof(id));
    replies_.published = number;
  }

  /// Writes a word of its half, now or at a fetch of the parent's to come.
  void scribble(std::optional<std::uint64_t> fetch) {
    honest_ = false;
    struct target {
      std::size_t offset;
      std::size_t width;
    };
    constexpr target words[] = {
        {offsetof(reply_half, published), 8},    {offsetof(reply_half, claimed), 8},
        {offsetof(reply_half, asleep), 4},       {offsetof(reply_half, state), 4},
        {offsetof(reply_half, busy_ns), 8},      {offsetof(reply_half, busy_since), 8},
        {offsetof(reply_half, failure_size), 8}, {offsetof(reply_half, timed), 8},
        {offsetof(reply_half, timed_since), 8},
    };
    constexpr std::uint32_t known = std::size(words);
    const std::uint32_t which = in_.below(known + 5);
    target where{0, 8};
    if (which < known) {
      where = words[which];
    } else if (which == known) {
      where = {in_.word() % (sizeof(reply_half) - 8), 8};  // anywhere
    } else {
      // In or near the headers that the parent reads next.
      const std::size_t head = (requests_.taken_bytes + 8 * in_.below(32)) % ring_bytes;
      where = {std::min(offsetof(reply_half, ring) + head, sizeof(reply_half) - 8), which % 2 == 0 ? 8U : 4U};
    }
    const std::uint64_t value = in_.odd_number(port_.settled());
    if (fetch) {
      memory_.touch(where.offset, where.width);
      hostile_memory::instance().change_at(*fetch, where.offset, value, where.width);
    } else {
      write(where.offset, &value, where.width);
    }
  }

  void write(std::size_t offset, const void* from, std::size_t size) {
    memory_.touch(offset, size);
    std::memcpy(reinterpret_cast<std::byte*>(&replies_) + offset, from, size);
  }

  // ---- the parent --------------------------------------------------------------------------------------------------

  void post() {
    const std::size_t count = 1 + in_.below(5);
    if (elements_ + count > 200) return;
    inputs_ptr arguments(new inputs);
    const bool uneven = in_.below(2) == 1;
    for (std::size_t i = 0; i != count; ++i) {
      arguments->bytes.put(elements_ + i);
      if (uneven) arguments->bytes.extend(i * 100);
      arguments->end_element();
    }
    static fuzz::idle_job job("fuzz", 0);
    post({job_ptr(&job), arguments, 0, elements_, count});
    elements_ += count;
  }

  void post(chunk what) {
    const std::size_t first = what.first;
    const std::size_t count = what.count;
    const hostile_memory::watching here;
    switch (port_.post(what)) {
      case post_result::posted:
        for (std::size_t i = 0; i != count; ++i) lane_.push_back(first + i);
        break;
      case post_result::full:
      case post_result::too_large:
        require(what.count == count && what.first == first, "a chunk that was not posted has changed");
        add_waiting(what);
    }
    port_.wake();
  }

  void repost() {
    if (waiting_.empty()) return;
    // As many as follow each other and came from one place go together.
    auto arguments = inputs_ptr(new inputs);
    const std::uint64_t id = waiting_.front();
    waiting_.pop_front();
    arguments->bytes.put(id);
    arguments->end_element();
    static fuzz::idle_job job("fuzz again", 0);
    post({job_ptr(&job), arguments, 0, static_cast<std::size_t>(id), 1});
  }

  void add_waiting(const chunk& what) {
    for (std::size_t i = 0; i != what.count; ++i) waiting_.push_back(what.first + i);
  }

  /// What came back from the lane is what lay behind its first `kept` elements.
  void check_back(const std::vector<chunk>& back, std::size_t kept) {
    std::size_t at = kept;
    for (const chunk& each : back) {
      for (std::size_t i = 0; i != each.count; ++i, ++at) {
        require(at < lane_.size() && lane_[at] == each.first + i, "another element came back than was posted");
      }
      add_waiting(each);
    }
    require(at == lane_.size(), "not all elements came back");
    lane_.resize(kept);
  }

  void take_back() {
    const std::uint64_t keep = port_.settled() + in_.below(8);
    const std::size_t kept = static_cast<std::size_t>(keep - port_.settled());
    std::vector<chunk> back;
    const hostile_memory::watching here;
    const std::uint64_t claimed = port_.claimed();
    require(claimed >= port_.settled() && claimed <= port_.last(), "claimed() outside of what is posted");
    if (!port_.take_back(keep, back)) {
      require(back.empty(), "take_back() failed, and took");
      port_.wake();
      return;
    }
    if (kept < lane_.size()) {
      check_back(back, kept);
      published_ = std::min(published_, port_.last());  // an honest one has not started them
    } else {
      require(back.empty(), "more was taken back than was asked for");
    }
    require(port_.last() == port_.settled() + lane_.size(), "the lane's end is not where it should be");
  }

  /// As scheduler::collect().
  void collect() {
    if (port_.empty()) return;
    const std::uint64_t settled = port_.settled();
    std::size_t read = 0;
    std::size_t count = 0;
    {
      const hostile_memory::watching here;
      const auto published = port_.published(settled, port_.last());
      if (!published) return distrust();
      require(*published >= settled && *published <= port_.last(), "published() outside of what is posted");
      count = static_cast<std::size_t>(*published - settled);
      for (; read != count; ++read) {
        std::optional<lane_port::worker_reply> reply;
        {
          const hostile_memory::each_byte_once once;
          reply = port_.next_reply(settled + 1 + read);
        }
        if (!reply) break;
        check(*reply, lane_[read]);
      }
    }
    settle(settled + read);
    if (read != count) return distrust();
    const hostile_memory::watching here;
    port_.taken(settled + read);
  }

  void check(const lane_port::worker_reply& reply, std::uint64_t id) {
    require(reply.kind >= reply_kind::value && reply.kind <= reply_kind::out_of_memory, "a reply of no kind");
    const auto* const half = reinterpret_cast<const std::byte*>(&replies_);
    if (reply.stable) {
      require(reply.size <= ring_payload, "a small reply that is large");
      require(reply.size == 0 || (reply.data < half || reply.data >= half + region_.layout().reply_bytes()),
              "a private copy in shared memory");
      volatile unsigned char last{};
      for (std::size_t i = 0; i < reply.size; i += 61) last = static_cast<unsigned char>(reply.data[i]);
      if (reply.size != 0) last = static_cast<unsigned char>(reply.data[reply.size - 1]);
      static_cast<void>(last);
    } else {
      const auto begin = static_cast<std::size_t>(reply.data - half);
      const bool series = begin >= offsetof(reply_half, ring) && begin + reply.size <= sizeof(reply_half);
      require(series || (begin >= region_layout::reply_arena && begin <= region_.layout().reply_bytes() &&
                         reply.size <= region_.layout().reply_bytes() - begin),
              "a reply outside of its arena, and of the ring");
      require(reply.count == 1, "results that were not asked for");
      require(reply.size <= std::size_t{1} << 20, "a reply that is larger than what was ever written");
    }
    if (!honest_) return;
    std::uint64_t answer = 0;
    require(reply.stable && reply.size == sizeof(answer), "an honest reply is not what was sent");
    std::memcpy(&answer, reply.data, sizeof(answer));
    require(answer == id, "an element got the reply of another one");
  }

  void settle(std::uint64_t number) {
    const std::size_t count = static_cast<std::size_t>(number - port_.settled());
    std::vector<chunk> through;
    port_.settle(number, through);
    require(count <= lane_.size(), "more ended than was posted");
    lane_.erase(lane_.begin(), lane_.begin() + static_cast<std::ptrdiff_t>(count));
    ended_ += count;
    require(port_.outstanding() == lane_.size() && port_.empty() == lane_.empty(), "the lane has lost count");
  }

  void distrust() {
    require(!honest_, "an honest worker was not believed");
    malformed_ = true;
    die();
  }

  /// As scheduler::ended(), for a worker that has been reaped: nobody writes any more.
  void die() {
    if (!malformed_) {
      bool more = !port_.empty();
      while (more && !malformed_) {
        const std::uint64_t before = port_.settled();
        const hostile_memory::watching here;
        const auto published = port_.published(before, port_.last());
        if (!published) {
          require(!honest_, "an honest worker was not believed");
          malformed_ = true;
          break;
        }
        std::uint64_t number = before;
        for (; number != *published; ++number) {
          const auto reply = port_.next_reply(number + 1);
          if (!reply) break;
          check(*reply, lane_[static_cast<std::size_t>(number - before)]);
        }
        if (number != *published) {
          require(!honest_, "an honest worker was not believed");
          malformed_ = true;
        }
        settle(number);
        more = number != before && !port_.empty();
      }
    }
    {
      const hostile_memory::watching here;
      const std::uint64_t settled = port_.settled();
      const std::uint64_t last = malformed_ ? port_.last() : std::min(port_.claimed(), settled + 1);
      for (std::uint64_t number = settled + 1; number <= last; ++number) {
        const auto [where, offset] = port_.find(number);
        require(where != nullptr && where->first + offset == lane_[static_cast<std::size_t>(number - settled - 1)],
                "the element that is lost is not the one that was posted");
      }
      settle(last);
      std::vector<chunk> back;
      std::vector<chunk> through;
      port_.take_all(back, through);
      check_back(back, 0);
      require(port_.empty(), "a lane without a worker holds something");
      look();
      port_.close();
    }
    malformed_ = false;
    start_worker();
  }

  /// Whatever else is asked of a lane.
  void look() {
    const hostile_memory::watching here;
    const std::uint64_t claimed = port_.claimed();
    require(claimed >= port_.settled() && claimed <= port_.last(), "claimed() outside of what is posted");
    const auto running = port_.running();
    require(!running || (*running > port_.settled() && *running <= port_.last()), "what runs is not posted");
    const auto since = port_.started(port_.settled() + 1);
    require(!since || since->time_since_epoch().count() >= 0, "started before all time");
    static_cast<void>(port_.initialized());
    static_cast<void>(port_.left());
    require(port_.failure().size() <= failure_text, "a long reason for a failure");
    require(port_.busy(std::chrono::steady_clock::now()).count() >= 0, "busy for less than no time");
    port_.wake();
  }

  lane_memory& memory_;
  shared_region& region_;
  request_half& requests_;
  reply_half& replies_;
  fuzz::input& in_;
  lane_port port_{region_, 0};
  std::uint64_t generation_ = 0;

  // The worker.
  std::uint64_t published_ = 0;
  ring_writer ring_{replies_.ring};
  bool honest_ = true;
  bool malformed_ = false;

  // The account. Elements are known by their index.
  std::uint64_t elements_ = 0;
  std::uint64_t ended_ = 0;
  std::deque<std::uint64_t> waiting_;  ///< not posted
  std::deque<std::uint64_t> lane_;     ///< posted and not settled, in order
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static lane_memory memory;
  fuzz::input program(data, size);
  lane_under_attack(memory, program).run();
  return 0;
}
