// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/detail/shared_memory/doorbell.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>
#include <procpool/detail/shared_memory/region.hpp>

#include "messages.hpp"

namespace instructions {

/// The promise is broken; the text says how.
class violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void require(bool holds, const char* what, std::uint64_t id) {
  if (!holds) throw violation("element " + std::to_string(id) + " " + what);
}

/// The parent's end of the one lane, with the library's own port, and what the parent knows of each element in private
/// memory. Its steps are those of the scheduler, which has the same port.
class parent_end {
 public:
  explicit parent_end(const run_counts& counts) : counts_(counts) { expect_worker(); }
  ~parent_end() {
    std::vector<chunk> left;
    port.take_all(left, left);
  }

  std::uint64_t claimed = 0;                         ///< what the worker claimed when it was looked at last
  std::chrono::steady_clock::time_point claimed_at;  ///< no earlier than that claim, and before anything behind it

  shared_region region{1};
  worker_bells bells;
  lane_port port{region, 0};

  int worker_socket() const noexcept { return worker_socket_.get(); }
  const message* current() const noexcept { return current_; }
  request_half& requests() const noexcept { return region.requests(0); }
  reply_half& replies() const noexcept { return region.replies(0); }

  // ---- submitting -------------------------------------------------------------------------------------------------

  /// All that went before has ended; from now on these elements are what the parent has to run.
  void submit(message& what) {
    current_ = &what;
    fates_.assign(what.count(), fate::waits);
    for (chunk& each : what.chunks) queue_.push_back(each);
    if (what.uses_attachments) port.receive();
  }
  /// Posts up to `most` chunks, as far as there is room. The number of those that were posted.
  std::size_t post(std::size_t most) {
    std::size_t posted = 0;
    while (posted != most && !queue_.empty() && port.post(queue_.front()) == post_result::posted) {
      queue_.pop_front();
      ++posted;
    }
    if (posted != 0) port.wake();
    return posted;
  }

  bool anything_queued() const noexcept { return !queue_.empty(); }
  bool anything_published() const {
    return !port.empty() && port.published(port.settled(), port.last()) != port.settled();
  }
  bool all_ended() const noexcept {
    return std::all_of(fates_.begin(), fates_.end(),
                       [](fate each) { return each == fate::replied || each == fate::lost; });
  }
  std::size_t lost() const noexcept {
    return static_cast<std::size_t>(std::count(fates_.begin(), fates_.end(), fate::lost));
  }

  // ---- taking back ------------------------------------------------------------------------------------------------

  /// lane_port::take_back() in two parts, between which the worker gets on: first the limit is lowered …
  void begin_take_back(std::uint64_t keep) {
    if (keep >= port.last()) return;
    requests().limit.store(keep, std::memory_order_seq_cst);
    taking_back_ = keep;
  }
  /// … then all of it is done, which lowers it again to the same. Whether anything came back.
  bool finish_take_back() {
    if (!taking_back_) return false;
    std::vector<chunk> back;
    const bool done = port.take_back(*std::exchange(taking_back_, std::nullopt), back);
    for (auto each = back.rbegin(); each != back.rend(); ++each) queue_.push_front(std::move(*each));
    port.wake();
    return done;
  }
  /// What waits and was one chunk is one again.
  void join_queued() {
    std::deque<chunk> joined;
    for (chunk& each : queue_) {
      if (!joined.empty() && joined.back().arguments == each.arguments) {
        joined.back().count += each.count;
      } else {
        joined.push_back(std::move(each));
      }
    }
    queue_ = std::move(joined);
  }
  bool taking_back() const noexcept { return taking_back_.has_value(); }

  // ---- reading ----------------------------------------------------------------------------------------------------

  /// Settles what is published, as scheduler::collect() does. `seen` is told of bytes that are read where they lie.
  template <class Seen>
  std::size_t collect(Seen seen) {
    if (port.empty()) return 0;  // a worker that starts has not said yet where it begins
    const std::uint64_t settled = port.settled();
    const auto published = port.published(settled, port.last());
    if (!published)
      throw violation("published is " + std::to_string(replies().published.load()) + ", which was never posted");
    for (std::uint64_t number = settled + 1; number <= *published;) {
      auto answer = port.next_reply(number, *published - number + 1);
      require(answer.has_value(), "has a malformed reply", id_of(number));
      if (!answer->stable) seen(answer->data, answer->size * answer->count);
      for (; answer->count != 0; --answer->count, ++number, answer->data += answer->size) {
        const std::uint64_t id = id_of(number);
        end(id, fate::replied);
        check_reply(id, *answer);
      }
    }
    if (*published == settled) return 0;
    std::vector<chunk> through;
    port.settle(*published, through);
    port.taken(*published);
    return static_cast<std::size_t>(*published - settled);
  }
  std::size_t collect() {
    return collect([](const std::byte*, std::size_t) {});
  }

  struct account {
    std::size_t published = 0;
    std::size_t lost = 0;
    std::size_t elsewhere = 0;
  };

  /// What the scheduler does when the worker is dead, in its order (scheduler::ended): what was published counts, what
  /// had started is lost, the rest runs elsewhere. Throws violation unless that is right for every element.
  template <class Seen>
  account recover(Seen seen) {
    account all;
    finish_take_back();
    while (const std::size_t n = collect(seen)) all.published += n;

    const std::uint64_t settled = port.settled();
    const std::uint64_t last = std::min(port.claimed(), settled + 1);
    for (std::uint64_t number = settled + 1; number <= last; ++number) {
      const std::uint64_t id = id_of(number);
      end(id, fate::lost);
      require(counts_[id].entered.load() <= 1, "is lost, and has run more than once", id);
      ++all.lost;
    }
    std::vector<chunk> through;
    port.settle(last, through);

    std::vector<chunk> back;
    port.take_all(back, through);
    for (const chunk& each : queue_) back.push_back(each);
    for (const chunk& each : back) {
      for (std::uint64_t id = each.first; id != each.first + each.count; ++id) {
        end(id, fate::elsewhere);
        require(counts_[id].entered.load() == 0, "is to run elsewhere, and has run here", id);
        ++all.elsewhere;
      }
    }
    check_all();
    queue_.assign(back.begin(), back.end());
    return all;
  }

  /// The worker has died in truth: recovers, and gets the lane ready for another one, which is to run what is left.
  void replace_worker() {
    recover([](const std::byte*, std::size_t) {});
    std::replace(fates_.begin(), fates_.end(), fate::elsewhere, fate::waits);
    port.close();
    region.prepare(0);
    expect_worker();
  }

  /// Every element of the message has had an end, and those that ended in a reply ran as often as they should.
  void check_all() const {
    if (current_ == nullptr) return;
    for (std::size_t i = 0; i != fates_.size(); ++i) {
      require(fates_[i] != fate::waits, "is forgotten", current_->first + i);
      if (fates_[i] == fate::replied) check_runs(current_->first + i);
    }
  }

 private:
  enum class fate { waits, replied, lost, elsewhere };

  /// The lane is for the next worker.
  void expect_worker() {
    auto [ours, theirs] = make_message_sockets();
    worker_socket_ = std::move(theirs);
    port.reset(generation_++, registered_fd(std::move(ours)));
  }

  std::uint64_t id_of(std::uint64_t number) const {
    const auto [where, offset] = port.find(number);
    if (where == nullptr) throw violation("number " + std::to_string(number) + " was never posted");
    return where->first + offset;
  }

  void end(std::uint64_t id, fate how) {
    if (current_ == nullptr || !current_->has(id))
      throw violation("element " + std::to_string(id) + " is none of the message's");
    require(fates_[id - current_->first] == fate::waits, "ends twice", id);
    fates_[id - current_->first] = how;
  }

  void check_runs(std::uint64_t id) const {
    const std::uint32_t runs = current_->expected[id - current_->first].runs ? 1 : 0;
    require(counts_[id].entered.load() == runs, "has a reply, and was not run as often as that says", id);
    require(counts_[id].finished.load() == runs, "has a reply, and its run has not ended", id);
  }

  void check_reply(std::uint64_t id, const lane_port::worker_reply& answer) {
    check_runs(id);
    if (current_->verify) {
      require(current_->verify(id, answer, port), "has a reply that is not what it returned", id);
      return;
    }
    const expected_reply& expected = current_->expected[id - current_->first];
    require(answer.kind == expected.kind, "has a reply of another kind", id);
    require(answer.size == expected.bytes.size() &&
                (answer.size == 0 || std::memcmp(answer.data, expected.bytes.data(), answer.size) == 0),
            "has a reply with other bytes", id);
  }

  const run_counts& counts_;
  unique_fd worker_socket_;
  std::uint64_t generation_ = 0;
  message* current_ = nullptr;
  std::deque<chunk> queue_;
  std::vector<fate> fates_;  ///< of the current message's elements
  std::optional<std::uint64_t> taking_back_;
};

}  // namespace instructions
