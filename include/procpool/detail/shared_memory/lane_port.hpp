// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <boost/circular_buffer.hpp>

#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/posix/descriptor_registry.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>
#include <procpool/detail/shared_memory/arena.hpp>
#include <procpool/detail/shared_memory/attachments.hpp>
#include <procpool/detail/shared_memory/lane_protocol.hpp>
#include <procpool/detail/shared_memory/layout.hpp>
#include <procpool/detail/shared_memory/region.hpp>
#include <procpool/detail/shared_memory/reply_reader.hpp>
#include <procpool/detail/shared_memory/ring.hpp>
#include <procpool/detail/shared_memory/sent_arrays.hpp>

namespace procpool::detail {

/// The parent's end of a lane: posts chunks, takes back what has not started, and reads replies. What a chunk is and
/// where it lies is remembered in private memory; nothing that comes from the worker is believed unchecked.
///
/// Two kinds of members: posting ones are called under the scheduler's lock, reading ones by the thread that has the
/// collecting role. Neither kind waits.
class lane_port {
 public:
  lane_port(shared_region& region, std::size_t lane)
      : requests_(region.requests(lane)),
        replies_(region.replies(lane)),
        kept_replies_(region.kept().replies),
        arguments_(region.arguments()),
        arena_(reinterpret_cast<std::byte*>(&requests_) + region_layout::request_arena, region.layout().arena_bytes,
               region.kept().requests),
        reader_(requests_, replies_, region.layout().reply_bytes()) {}
  ~lane_port() { arrays_->close(); }
  lane_port(const lane_port&) = delete;
  lane_port& operator=(const lane_port&) = delete;

  // ---- posting ---------------------------------------------------------------------------------------------------

  /// A new worker is to start here: numbers go on where they are, replies begin anew. Only while there is no worker and
  /// nothing is posted.
  void reset(std::uint64_t generation, registered_fd socket) {
    socket_ = std::move(socket);
    inbox_.emplace(socket_.get());
    arrays_->reset(socket_.get());
    refused_since_.reset();
    requests_.generation = generation;
    requests_.before_first = last_;
    requests_.first_slot = next_slot_;
    requests_.kept_bytes = kept_replies_;
    requests_.leave.store(0, std::memory_order_relaxed);
    requests_.stop.store(0, std::memory_order_relaxed);
    requests_.taken.store(last_, std::memory_order_relaxed);
    requests_.taken_bytes.store(0, std::memory_order_relaxed);
    requests_.limit.store(last_, std::memory_order_release);
    reader_.restart();
  }

  /// Gives the chunk's elements the next numbers and lets the worker run them. `too_large`: not even an empty lane
  /// could take it. The worker still has to be woken.
  post_result post(chunk& what) {
    if (posted_.size() >= slot_count - 2) return post_result::full;
    if (posted_.empty()) ring_tail_ = ring_.restart();  // the same memory again: only slots name what lies in it
    posted_.push_back({.what = {}, .first = last_ + 1, .slot = next_slot_, .ring_before = ring_.head()});
    posting& entry = posted_.back();
    if (!copy(what, entry)) {
      posted_.pop_back();
      return posted_.empty() ? post_result::too_large : post_result::full;
    }
    if (!send(what, last_ + what.count)) {
      release(entry);
      ring_.rewind(entry.ring_before);
      posted_.pop_back();
      // An idle worker takes in all that is sent: what it never has room for is more than may be on its way at once.
      if (!posted_.empty() || what.count != 1 || std::chrono::steady_clock::now() - *refused_since_ < longest_refusal)
        return post_result::full;
      refused_since_.reset();  // the next chunk is judged anew
      return post_result::too_large;
    }

    request_slot& slot = requests_.slots[next_slot_];
    const parted_job* const whole = what.parted();
    slot.job = whole == nullptr ? 0 : whole->serial();
    slot.element = what.first;
    slot.count = what.count;
    slot.code = reinterpret_cast<std::uintptr_t>(what.target->code());
    slot.callable = entry.callable.address;
    slot.callable_size = entry.callable.size;
    slot.arguments = entry.arguments.address;
    slot.stride = what.arguments->uniform() ? what.arguments->end_of(0) - what.arguments->begin_of(0) : 0;
    slot.ends = entry.ends.address;
    slot.stop_on_failure = what.target->stop_on_failure ? 1 : 0;
    slot.timed = what.target->limits.timeout.count() != 0 ? 1 : 0;
    slot.together = whole != nullptr && whole->awaited_together ? 1 : 0;
    slot.result_size = whole != nullptr && what.arguments->uniform() ? whole->series_size : 0;
    protocol::begin(requests_, next_slot_, entry.first);

    last_ += what.count;
    next_slot_ = (next_slot_ + 1) % slot_count;
    entry.what = std::move(what);
    protocol::allow(requests_, last_);
    return post_result::posted;
  }

  /// Once everything up to `limit` has run, the worker is to leave in good order. Nothing may be posted afterwards.
  void leave() noexcept { protocol::tell_to_leave(requests_); }

  /// Asks the element with that number to stop by itself.
  void request_stop(std::uint64_t number) noexcept { protocol::ask_to_stop(requests_, number); }

  /// Makes the worker look, if it sleeps for want of something to run. False if it does not.
  bool wake() noexcept { return protocol::wake(requests_, replies_, sleeping_for::work); }

  /// Whether there is something to wake(), for what this thread has posted, and does next.
  bool asleep(afterwards next) noexcept {
    const int awaited_on = next == afterwards::watches ? ::sched_getcpu() + 1 : 0;
    requests_.awaited_on.store(awaited_on, std::memory_order_relaxed);
    return protocol::asleep(requests_, replies_, sleeping_for::work);
  }

  /// The same whatever it says of itself: what a thread of a task has overwritten, it then says again.
  void wake_in_any_case() noexcept { protocol::wake_in_any_case(requests_); }

  /// The highest number posted, and the highest settled.
  std::uint64_t last() const noexcept { return last_; }
  std::uint64_t settled() const noexcept { return settled_; }
  std::size_t outstanding() const noexcept { return static_cast<std::size_t>(last_ - settled_); }
  bool empty() const noexcept { return last_ == settled_; }

  /// The highest number that the worker has started, as far as it can be believed.
  std::uint64_t claimed() const noexcept { return std::clamp(protocol::claimed(replies_), reading_, last_); }

  /// The number of the element that runs: it has been started, and its reply is not there.
  std::optional<std::uint64_t> running() const noexcept {
    const std::uint64_t seen = claimed();
    if (seen == reading_ || protocol::published(replies_) >= seen) return std::nullopt;
    return seen;
  }

  /// When the worker says that it started that element; nothing if it does not. Only for those that are timed.
  std::optional<std::chrono::steady_clock::time_point> started(std::uint64_t number) const noexcept {
    constexpr std::uint64_t latest = std::numeric_limits<std::int64_t>::max();
    if (protocol::timed(replies_) != number) return std::nullopt;
    const std::uint64_t since = std::min(latest, replies_.timed_since.load(std::memory_order_relaxed));
    return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(since));
  }

  /// Takes back all elements above `keep` if none of them has started; they are handed out in order. Else nothing changes
  /// but that the worker may have stepped back in between, so it has to be woken.
  template <class Chunks>
  bool take_back(std::uint64_t keep, Chunks& out) {
    if (keep >= last_) return true;
    if (!protocol::take_back(requests_, replies_, keep, last_)) return false;
    cut(keep, out);
    arrays_->taken_back(keep);
    return true;
  }

  /// The worker is gone: all that is posted behind the settled elements, in order.
  template <class Chunks, class Through>
  void take_all(Chunks& out, Through& through) {
    requests_.limit.store(settled_, std::memory_order_relaxed);
    cut(settled_, out);
    settle(settled_, through);  // of a chunk that was cut, what is left is settled
  }

  /// The chunk and the place in it of a posted number.
  std::pair<const chunk*, std::size_t> find(std::uint64_t number) const noexcept {
    for (const posting& entry : posted_) {
      if (number < entry.first + entry.what.count) return {&entry.what, static_cast<std::size_t>(number - entry.first)};
    }
    return {nullptr, 0};
  }

  /// The chunks that are posted, with the number of each one's first element.
  template <class Visit>
  void for_each_posted(Visit visit) const {
    for (const posting& entry : posted_) visit(entry.what, entry.first);
  }

  /// The replies up to `number` are about to be read, which takes place without the lock: until settle() they count as
  /// started and published, whatever the worker says from now on.
  void reading(std::uint64_t number) noexcept { reading_ = number; }

  /// Elements up to `number` are settled: what they occupied is free again.
  /// The chunks that are through are handed out, to be destroyed where no lock is held.
  template <class Chunks>
  void settle(std::uint64_t number, Chunks& through) {
    settled_ = reading_ = number;
    while (!posted_.empty() && posted_.front().first + posted_.front().what.count - 1 <= number) {
      posting& entry = posted_.front();
      release(entry);
      ring_tail_ = entry.ring_end;
      arguments_size_ = entry.arguments.size;
      through.push_back(std::move(entry.what));
      posted_.pop_front();
    }
  }

  // ---- reading ---------------------------------------------------------------------------------------------------

  using worker_reply = reply_reader::worker_reply;

  /// Whether the worker's initializer has ended well.
  bool initialized() const noexcept {
    const worker_state now = state();
    return now == worker_state::ready || now == worker_state::outgrown || now == worker_state::leaving ||
           now == worker_state::left;
  }
  /// Whether it has grown too large, and starts nothing more.
  bool outgrown() const noexcept { return state() == worker_state::outgrown; }
  /// Whether the worker has left in good order.
  bool left() const noexcept { return state() == worker_state::left; }

  /// Whether there is nothing to read, and nothing amiss: all that a look without the scheduler's mutex can tell.
  bool quiet() const noexcept { return protocol::quiet(replies_, settled_); }

  /// The highest number whose reply can be read. Nothing if the worker has published what was never posted,
  /// or claims what cannot be its last or its next.
  std::optional<std::uint64_t> published(std::uint64_t settled, std::uint64_t last) const noexcept {
    return protocol::published(replies_, settled, last);
  }

  /// As reply_reader::next().
  std::optional<worker_reply> next_reply(std::uint64_t number, std::uint64_t most = 1) noexcept {
    const std::optional<worker_reply> answer = reader_.next(number, most);
    if (answer && answer->kind == reply_kind::unserializable) arrays_->doubt();
    return answer;
  }

  /// Replies up to `number` have been read: the worker may use their memory again.
  void taken(std::uint64_t number) noexcept {
    inbox_->discard(number);
    protocol::take(requests_, number, reader_.position());
    protocol::wake(requests_, replies_, sleeping_for::room);
  }

  /// The bytes of the arguments that were settled last, and of the reply that was read last.
  std::size_t carried() const noexcept { return arguments_size_ + reader_.last_size(); }

  attachment_inbox& inbox() noexcept { return *inbox_; }
  /// Takes in the shared arrays that have come. False if the worker's end is closed.
  bool receive() noexcept { return !inbox_ || inbox_->receive(); }
  int socket() const noexcept { return socket_.get(); }

  /// Whether the worker is to ring when it publishes: 0 no, else once for this value.
  void set_sleeping(std::uint32_t value) noexcept { protocol::set_sleeping(requests_, value); }

  /// Why the initializer failed; empty if it did not say.
  std::string failure() const {
    if (state() != worker_state::failed) return {};
    const std::uint64_t said = std::atomic_ref(replies_.failure_size).load(std::memory_order_relaxed);  // once
    const std::size_t size = std::min<std::uint64_t>(said, failure_text);
    return std::string(replies_.failure, size);
  }

  /// What the worker said of the signal that it died of. Only once it is gone.
  crash_report report() const {
    const crash_record& record = replies_.crash;
    crash_report all;
    all.signal = static_cast<int>(record.signal.load(std::memory_order_acquire));
    if (all.signal == 0) return all;
    all.fault_address = reinterpret_cast<void*>(record.address.load(std::memory_order_relaxed));
    const std::uint32_t count = std::min(crash_record::most_frames, record.frame_count.load(std::memory_order_acquire));
    for (std::uint32_t i = 0; i != count; ++i) {
      all.frames.push_back(reinterpret_cast<void*>(record.frames[i].load(std::memory_order_relaxed)));
    }
    return all;
  }

  /// How long the worker has run tasks, by its own account.
  std::chrono::nanoseconds busy(std::chrono::steady_clock::time_point now) const noexcept {
    constexpr std::uint64_t longest = std::uint64_t{1} << 62;
    const std::uint64_t before = replies_.busy_ns.load(std::memory_order_relaxed);
    const std::uint64_t since = replies_.busy_since.load(std::memory_order_relaxed);
    const auto until = static_cast<std::uint64_t>(now.time_since_epoch() / std::chrono::nanoseconds(1));
    const std::uint64_t current = since == 0 || since > until ? 0 : until - since;
    return std::chrono::nanoseconds(std::min(longest, std::min(longest, before) + std::min(longest, current)));
  }

  /// The worker is gone and its replies are read.
  void close() noexcept {
    arrays_->close();
    inbox_.reset();
    socket_.reset();
  }

 private:
  worker_state state() const noexcept { return replies_.state.load(std::memory_order_acquire); }

  struct payload {
    std::uintptr_t address = 0;
    std::size_t size = 0;
    std::byte* block = nullptr;  ///< in the arena; null: in the ring, in the argument_memory, or empty
  };
  struct posting {
    chunk what;
    std::uint64_t first = 0;
    std::size_t slot = 0;
    std::uint64_t ring_before = 0;
    std::uint64_t ring_end = 0;
    payload callable{};
    payload arguments{};
    payload ends{};

    /// The first bytes of the arguments are the callable.
    void split_callable(std::size_t size) noexcept {
      callable = {arguments.address, size, nullptr};
      arguments.address += size;
      arguments.size -= size;
    }
  };

  /// Finds room for `size` bytes that begin `skew` bytes past a multiple of payload_alignment; null if there is none.
  std::byte* place(std::size_t size, std::size_t skew, payload& to) noexcept {
    to.size = size;
    const std::size_t room = round_up(skew + size, payload_alignment);
    std::byte* begin;
    if (room <= ring_payload) {
      if (!ring_.prepare(room, ring_tail_) || !ring_.fits(room, ring_tail_)) return nullptr;
      begin = requests_.ring + ring_.place(room) % ring_bytes;
    } else {
      begin = to.block = arena_.allocate(room);
      if (begin == nullptr) return nullptr;
    }
    to.address = reinterpret_cast<std::uintptr_t>(begin) + skew;
    return begin + skew;
  }

  bool copy(const std::byte* from, std::size_t size, std::size_t skew, payload& to) noexcept {
    if (size == 0) return true;
    std::byte* const at = place(size, skew, to);
    if (at != nullptr) std::memcpy(at, from, size);
    return at != nullptr;
  }

  /// What the worker can read where it lies is not copied.
  bool copy_arguments(const std::byte* from, std::size_t size, std::size_t skew, payload& to) noexcept {
    if (!arguments_.holds(from)) return copy(from, size, skew, to);
    to.address = reinterpret_cast<std::uintptr_t>(from);
    to.size = size;
    return true;
  }

  bool copy_ends(const chunk& what, std::size_t begin, payload& to) noexcept {
    if (what.arguments->uniform()) return true;
    std::byte* const at = place(what.count * sizeof(std::uint64_t), 0, to);
    if (at == nullptr) return false;
    for (std::size_t i = 0; i != what.count; ++i) {
      const std::uint64_t end = what.arguments->end_of(what.offset + i) - begin;
      std::memcpy(at + i * sizeof(end), &end, sizeof(end));
    }
    return true;
  }

  bool copy(const chunk& what, posting& entry) noexcept {
    const parted_job* const whole = what.parted();
    // The callable of a call lies before the arguments, and is copied with them.
    const std::size_t begin = whole == nullptr ? 0 : what.arguments->begin_of(what.offset);
    const std::size_t end = what.arguments->end_of(what.offset + what.count - 1);
    // Padding depends on the position in the inputs: it is kept modulo payload_alignment.
    if ((whole == nullptr || copy(whole->callable.data(), whole->callable.size(), 0, entry.callable)) &&
        copy_arguments(what.arguments->bytes.data() + begin, end - begin, begin % payload_alignment, entry.arguments) &&
        copy_ends(what, what.arguments->begin_of(what.offset), entry.ends)) {
      if (whole == nullptr) entry.split_callable(what.arguments->callable_size());
      entry.ring_end = ring_.head();
      return true;
    }
    release(entry);
    ring_.rewind(entry.ring_before);
    return false;
  }

  void release(posting& entry) noexcept {
    for (payload* each : {&entry.callable, &entry.arguments, &entry.ends}) {
      if (each->block != nullptr) arena_.deallocate(std::exchange(each->block, nullptr));
    }
  }

  /// Sends the arrays that the chunk's bytes name and the worker does not keep. False if the socket is full for now.
  bool send(const chunk& what, std::uint64_t last) noexcept {
    const parted_job* const whole = what.parted();
    const auto of_callable =
        whole == nullptr ? std::span<const std::shared_ptr<array_block>>() : whole->callable.attachments();
    const auto of_inputs = what.arguments->bytes.attachments();
    if (of_callable.empty() && of_inputs.empty()) return true;
    const std::size_t begin = what.arguments->attachments_begin(what.offset);
    const std::size_t end = what.arguments->attachments_begin(what.offset + what.count);
    if (arrays_->send(arrays_, last, settled_, {of_callable, of_inputs.subspan(begin, end - begin)})) {
      refused_since_.reset();
      return true;
    }
    if (!refused_since_) refused_since_ = std::chrono::steady_clock::now();
    arrays_->taken_back(last_);
    wake();  // to take in what has been sent
    return false;
  }

  template <class Chunks>
  void cut(std::uint64_t keep, Chunks& out) {
    const std::size_t before = out.size();
    while (!posted_.empty() && posted_.back().first > keep) {
      posting& entry = posted_.back();
      release(entry);
      ring_.rewind(entry.ring_before);
      next_slot_ = entry.slot;
      out.push_back(std::move(entry.what));
      posted_.pop_back();
    }
    if (!posted_.empty()) {
      posting& entry = posted_.back();
      const auto kept = static_cast<std::size_t>(keep - entry.first + 1);
      if (kept < entry.what.count) out.push_back(entry.what.split(kept));
    }
    std::reverse(out.begin() + static_cast<std::ptrdiff_t>(before), out.end());
    last_ = keep;
  }

  request_half& requests_;
  reply_half& replies_;
  std::size_t kept_replies_;
  const argument_memory& arguments_;

  boost::circular_buffer<posting> posted_{slot_count};  // never grows: noting a chunk must not fail
  std::uint64_t last_ = 0;                              ///< the highest number posted; what `limit` says
  std::uint64_t settled_ = 0;                           ///< the highest number settled
  std::uint64_t reading_ = 0;  ///< the highest number whose reply is being read; settled_ while none is
  std::size_t next_slot_ = 0;
  ring_writer ring_{requests_.ring};
  std::uint64_t ring_tail_ = 0;
  lane_arena arena_;

  registered_fd socket_;
  std::optional<attachment_inbox> inbox_;
  /// Shared with the arrays, which tell it of their end.
  const std::shared_ptr<sent_arrays> arrays_ = std::make_shared<sent_arrays>(requests_, replies_);
  reply_reader reader_;
  std::size_t arguments_size_ = 0;
  static constexpr auto longest_refusal = std::chrono::seconds(5);  ///< by an idle worker, of what is sent to it
  std::optional<std::chrono::steady_clock::time_point> refused_since_;
};

}  // namespace procpool::detail
