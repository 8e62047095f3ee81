// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include <procpool/detail/codec/code_map.hpp>
#include <procpool/detail/codec/exception_codec.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/posix/growth_meter.hpp>
#include <procpool/detail/posix/spin.hpp>
#include <procpool/detail/shared_memory/attachments.hpp>
#include <procpool/detail/shared_memory/doorbell.hpp>
#include <procpool/detail/shared_memory/lane_protocol.hpp>
#include <procpool/detail/shared_memory/layout.hpp>
#include <procpool/detail/shared_memory/reply_writer.hpp>
#include <procpool/detail/shared_memory/ring.hpp>
#include <procpool/detail/shared_memory/stdio_flush.hpp>
#include <procpool/detail/shared_memory/worker_arrays.hpp>

namespace procpool::detail {

/// What a worker does between its initializer and its finalizer: runs the elements that its lane allows, one after the
/// other. It writes its reply half and nothing else, one release store for each thing that is done.
class worker_loop final : result_series {
 public:
  worker_loop(const request_half& requests, reply_half& replies, std::size_t arena_bytes, int socket,
              const worker_bells& bells, growth_meter growth = growth_meter(0))
      : requests_(requests),
        replies_(replies),
        socket_(socket),
        bells_(bells),
        growth_(std::move(growth)),
        arrays_(socket, requests),
        next_slot_(requests.first_slot),
        published_(requests.before_first),
        result_({reinterpret_cast<std::byte*>(&replies) + region_layout::reply_arena, arena_bytes,
                 static_cast<std::size_t>(requests.kept_bytes)},
                requests),
        identity_(make_identity()) {
    replies_.claimed.store(published_, std::memory_order_relaxed);
    replies_.published.store(published_, std::memory_order_release);
  }

  /// Returns when the parent wants the worker to leave.
  void run() {
    run_elements();
    arrays_.clear();
  }

  /// After the state has changed: tells the parent to look, whether it sleeps or not.
  void announce() const noexcept { bells_.collector.ring(); }

 private:
  using clock = std::chrono::steady_clock;

  /// A worker that waits so long has nothing to do: if work were there, even a sleeper would be woken sooner.
  static constexpr auto long_wait = std::chrono::microseconds(200);
  static constexpr auto worth_a_sleep = std::chrono::microseconds(10);

  void run_elements() {
    for (;;) {
      const std::uint64_t number = published_ + 1;
      if (!protocol::allowed(requests_, number) && !wait_for(number)) return;
      // Before the claim, as a death meanwhile is to cost nothing. Whether a chunk begins is certain behind it.
      if (to_ring_ && (short_of_room() || (protocol::begins(requests_, next_slot_, number) && runs_low(number))))
        ring_for_chunk();
      if (!protocol::claim(requests_, replies_, number)) continue;
      if (busy_since_ == 0) busy();
      hear_of_arrays();
      if (protocol::begins(requests_, next_slot_, number)) begin_chunk(number);
      run_element(number);
      arrays_.discard(published_);
      if (outgrown_) return wait_to_leave();
    }
  }

  // ---- waiting ---------------------------------------------------------------------------------------------------

  static std::uint64_t now_ns() noexcept {
    return static_cast<std::uint64_t>(clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
  }

  void busy() noexcept {
    busy_since_ = now_ns();
    replies_.busy_since.store(busy_since_, std::memory_order_relaxed);
  }
  void idle() noexcept {
    if (busy_since_ == 0) return;
    busy_ns_ += now_ns() - busy_since_;
    busy_since_ = 0;
    replies_.busy_since.store(0, std::memory_order_relaxed);
    replies_.busy_ns.store(busy_ns_, std::memory_order_relaxed);
  }

  /// Until `number` may be run: true; false if the worker is to leave instead.
  bool wait_for(std::uint64_t number) {
    ring_for_chunk();
    idle();
    result_.reclaim();
    const auto allowed = [&] { return protocol::allowed(requests_, number); };
    for (;;) {
      sleep_until([&] { return allowed() || protocol::told_to_leave(requests_); }, sleeping_for::work);
      if (protocol::dismissed(requests_, number)) return false;
      if (allowed()) return true;  // else `limit` has been lowered again meanwhile
    }
  }

  void wait_to_leave() {
    ring_for_chunk();
    idle();
    sleep_until([&] { return protocol::told_to_leave(requests_); }, sleeping_for::work);
  }

  /// Looks for a while, as a sleep costs some hundred times what a look costs, then sleeps until the parent wakes it.
  template <class Condition>
  void sleep_until(Condition condition, sleeping_for what) {
    const auto since = clock::now();
    waited_before_ = std::exchange(waited_, std::chrono::nanoseconds(0));
    if (spin_until(condition, patience_, carried_, [this](auto spent) { return in_the_way(spent); })) {
      patience_ = patience::usual;
      return;
    }
    do {
      hear_of_arrays();
      say_again(what);
      protocol::sleep_unless(requests_, replies_, what, [&] { return condition() || arrays_.news(); });
    } while (!condition());
    waited_ = clock::now() - since;
    patience_ = waited_ < long_wait ? patience::usual : patience::little;
  }

  /// Looks on the processor of the one thread that it waits for, and for longer than it takes to sleep and to be woken there:
  /// however often it gives that processor away, it has half of its time. Now and then a sleep is worth while in any case:
  /// when that thread wakes it the system puts it on a processor that is idle, if there is one.
  bool in_the_way(std::chrono::nanoseconds spent) noexcept {
    waited_ = spent;
    if (requests_.awaited_on.load(std::memory_order_relaxed) != ::sched_getcpu() + 1) return false;
    const auto now = clock::now();
    if (std::max(spent, waited_before_) < worth_a_sleep && now < stays_until_) return false;
    stays_until_ = now + std::chrono::milliseconds(1);
    return true;
  }

  /// These words are all that the parent knows this worker by, and a thread that a task has left behind may have
  /// overwritten them. While anything is awaited from here the parent wakes it now and then.
  void say_again(sleeping_for what) noexcept {
    protocol::say_again(replies_, what == sleeping_for::room ? published_ + 1 : published_, published_);
    say_state();
  }
  void say_state() noexcept {
    replies_.state.store(outgrown_ ? worker_state::outgrown : worker_state::ready, std::memory_order_release);
  }

  /// Takes in what has been sent, and lets go of what it keeps for the parent's sake alone.
  void hear_of_arrays() {
    if (!arrays_.news()) return;
    kept_.reset();  // may hold an array
    arrays_.hear();
  }

  // ---- running ---------------------------------------------------------------------------------------------------

  void begin_chunk(std::uint64_t number) {
    const request_slot& slot = requests_.slots[next_slot_];
    next_slot_ = (next_slot_ + 1) % slot_count;
    first_ = number;
    element_ = slot.element;
    code_ = reinterpret_cast<task_code>(slot.code);
    callable_ = reinterpret_cast<const std::byte*>(slot.callable);
    callable_size_ = slot.callable_size;
    arguments_ = reinterpret_cast<const std::byte*>(slot.arguments);
    behind_ = number + slot.count;
    result_size_ = slot.result_size;
    stride_ = slot.stride;
    ends_ = reinterpret_cast<const std::uint64_t*>(slot.ends);
    kept_.reset();
    arrays_.begin_chunk();
    job_ = slot.job;
    stop_on_failure_ = slot.stop_on_failure != 0;
    timed_ = slot.timed != 0;
    together_ = slot.together != 0;
    code_known_ = code_map::contains(reinterpret_cast<const void*>(slot.code));
  }

  std::uint64_t element_of(std::uint64_t number) const noexcept { return element_ + (number - first_); }

  /// Runs the element, and perhaps some behind it, and publishes them.
  void run_element(std::uint64_t number) {
    starts(number);
    reply_kind kind = reply_kind::skipped;
    if (!(stop_on_failure_ && job_ == failed_job_ && element_of(number) > failed_element_)) {
      kind = result_size_ != 0 && behind_ - number > 1 ? run_series(number) : call(number, 1, nullptr);
      if (kind == reply_kind::series) return;
      number = published_ + 1;
      if (!ring_.prepare(reply_room(), protocol::taken_bytes(requests_))) {
        result_.abandon();
        kind = reply_kind::out_of_memory;
      }
      if (stop_on_failure_ && kind != reply_kind::value) {
        failed_job_ = job_;
        failed_element_ = element_of(number);
      }
    }
    note_growth();
    publish(number, kind);
  }

  void starts(std::uint64_t number) noexcept {
    if (timed_) protocol::start(replies_, number, now_ns());
  }

  void note_growth() noexcept {
    if (!growth_.past_limit()) return;
    outgrown_ = true;  // the parent sees it when it sees that this element has ended
    say_state();
  }

  /// From `first` on, which is in a chunk of elements of one size if `count` is not 1.
  byte_reader arguments_of(std::uint64_t first, std::uint64_t count) noexcept {
    const std::uint64_t i = first - first_;
    const std::size_t begin = ends_ == nullptr ? i * stride_ : i == 0 ? 0 : ends_[i - 1];
    const std::size_t end = ends_ == nullptr ? begin + count * stride_ : ends_[i];
    return {arguments_ + begin, end - begin, &arrays_};
  }

  reply_kind call(std::uint64_t number, std::uint64_t count, result_series* series) {
    byte_reader arguments = arguments_of(number, count);
    carried_ = arguments.remaining();
    call_frame frame{byte_reader(callable_, callable_size_, &arrays_), arguments, result_, kept_, series};
    reply_kind kind;
    try {
      if (!code_known_)
        throw make_error<serialization_error>("the code of the task was loaded after the pool was made",
                                              std::string("task"));
      kind = code_(frame);
    } catch (const serialization_error& failure) {
      result_.abandon();
      encode_failure(result_, failure);
      kind = reply_kind::unserializable;
    } catch (const out_of_shared_memory&) {
      result_.abandon();
      kind = reply_kind::out_of_memory;
    } catch (const std::bad_alloc&) {
      result_.abandon();
      kind = reply_kind::out_of_memory;
    }
    after_task();
    return kind;
  }

  void after_task() const noexcept {
    // A process that the task forked and that came back from it is not this worker (madvise(2), MADV_WIPEONFORK).
    if (*identity_ == 0) ::_exit(EXIT_SUCCESS);
    streams_.flush();
  }

  // ---- running a series --------------------------------------------------------------------------------------------

  /// Runs the elements of the chunk from `number` on in one go: all of them end here, or the last one that was claimed
  /// ends as returned, in something else than a value.
  reply_kind run_series(std::uint64_t number) {
    const std::uint64_t room = std::min<std::uint64_t>(behind_ - number, series_bytes / result_size_);
    const reply_header header{number, result_size_, 0, static_cast<std::uint32_t>(reply_kind::series),
                              static_cast<std::uint32_t>(room)};
    // Behind it there is room for a reply without a result, whatever comes.
    const std::size_t in_ring = sizeof(header) + round_up(room * result_size_, alignof(reply_header));
    if (!ring_.prepare(in_ring + sizeof(header), protocol::taken_bytes(requests_))) return call(number, 1, nullptr);
    std::byte* const at = place(in_ring + sizeof(header));
    ring_.rewind(ring_.head() - sizeof(header));
    std::memcpy(at, &header, sizeof(header));
    result = at + sizeof(header);
    room_ends_ = number + room;
    const reply_kind kind = call(number, room, this);
    if (published_ + 1 != room_ends_) {
      // Seen by whoever sees what is published behind it, and not before.
      end_of_series(at).store(published_ + 1, std::memory_order_relaxed);
      ring_.hold(in_ring);
    }
    return kind;
  }

  bool go_on() override {
    after_task();
    note_growth();
    result += result_size_;
    const std::uint64_t number = ++published_;
    const std::uint64_t next = number + 1;
    if (outgrown_ || next == room_ends_ || !protocol::allowed(requests_, next)) {
      protocol::publish(replies_, number);
      after_publication();
      return false;
    }
    bool claimed;
    if (together_) {
      to_ring_ = true;
      claimed = protocol::publish_and_claim(requests_, replies_, number);
    } else {
      protocol::publish(replies_, number);
      ring();
      claimed = protocol::claim(requests_, replies_, next);
    }
    // Where the chunk was cut another one may begin. Whoever does not run what it has claimed claims it again.
    if (!claimed || protocol::begins(requests_, next_slot_, next) || arrays_.news()) return false;
    starts(next);
    return true;
  }

  // ---- replying --------------------------------------------------------------------------------------------------

  /// What the result takes in the ring.
  std::size_t reply_room() const noexcept {
    return sizeof(reply_header) + (result_.large() ? 0 : round_up(result_.size(), alignof(reply_header)));
  }

  void publish(std::uint64_t number, reply_kind kind) {
    // What could not be sent the parent will miss when it decodes the result.
    if (!result_.attachments().empty()) send_attachments(socket_, number, result_.attachments(), 0);
    reply_header header{number, result_.size(), 0, static_cast<std::uint32_t>(kind), 0};
    carried_ += header.size;
    std::byte* at = place(reply_room());
    const std::byte* const block = result_.hand_over(number);
    if (block != nullptr) header.arena = static_cast<std::uint64_t>(block - reinterpret_cast<std::byte*>(&replies_));
    std::memcpy(at, &header, sizeof(header));
    if (block == nullptr && result_.size() != 0) std::memcpy(at + sizeof(header), result_.data(), result_.size());
    result_.restart();
    published_ = number;
    protocol::publish(replies_, number);
    after_publication();
    // What is behind a failed element may not be wanted any more.
    if (kind != reply_kind::value && kind != reply_kind::skipped) ring_for_chunk();
  }

  void after_publication() noexcept {
    if (together_) {
      to_ring_ = true;
    } else {
      ring();
    }
  }
  /// Half of what it had when it was last given something is through.
  bool runs_low(std::uint64_t number) noexcept {
    if (const std::uint64_t last = protocol::limit(requests_); last != last_) {
      last_ = last;
      middle_ = number + (last - number) / 2;
    }
    return number >= middle_;
  }
  /// While more than half of the ring is to be read, a result may find no room there.
  bool short_of_room() const noexcept { return ring_.head() - protocol::taken_bytes(requests_) > ring_bytes / 2; }
  /// For what has been published of a chunk whose elements are awaited together.
  void ring_for_chunk() noexcept {
    if (std::exchange(to_ring_, false)) ring();
  }
  void ring() noexcept {
    const std::uint32_t sleeping = protocol::sleeping(requests_);
    if (sleeping == 0 || sleeping == rung_) return;
    rung_ = sleeping;
    bells_.of(sleeping).ring();
  }

  /// Room in the ring; waits until the parent has read enough of it.
  std::byte* place(std::size_t n) {
    const auto fits = [&] { return ring_.fits(n, protocol::taken_bytes(requests_)); };
    if (!fits()) {
      ring_for_chunk();  // where the ring has found little memory
      sleep_until(fits, sleeping_for::room);
    }
    const std::uint64_t before = ring_.head();
    const std::uint64_t at = ring_.place(n);
    if (at - before >= sizeof(reply_header)) {
      const reply_header wrap{reply_header::wrap, 0, 0, 0, 0};
      std::memcpy(replies_.ring + before % ring_bytes, &wrap, sizeof(wrap));
    }
    return replies_.ring + at % ring_bytes;
  }

  static const volatile unsigned char* make_identity() {
    void* page = ::mmap(nullptr, lane_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || ::madvise(page, lane_page, MADV_WIPEONFORK) != 0) ::_exit(EXIT_FAILURE);
    auto* identity = static_cast<unsigned char*>(page);
    *identity = 1;
    return identity;
  }

  const request_half& requests_;
  reply_half& replies_;
  int socket_;
  const worker_bells& bells_;
  const growth_meter growth_;
  const standard_streams streams_;
  bool outgrown_ = false;
  worker_arrays arrays_;

  // The chunk that is being run.
  std::size_t next_slot_;
  std::uint64_t first_ = 0;
  std::uint64_t behind_ = 0;  ///< the number behind its last element, or a higher one
  std::uint64_t element_ = 0;
  task_code code_ = nullptr;
  bool code_known_ = false;
  const std::byte* callable_ = nullptr;
  std::size_t callable_size_ = 0;
  const std::byte* arguments_ = nullptr;
  std::size_t stride_ = 0;
  const std::uint64_t* ends_ = nullptr;
  std::uint32_t result_size_ = 0;
  std::uint64_t room_ends_ = 0;  ///< the number behind the last one that the series has room for
  std::shared_ptr<void> kept_;
  std::uint64_t job_ = 0;
  bool stop_on_failure_ = false;
  bool timed_ = false;
  bool together_ = false;
  bool to_ring_ = false;
  std::uint64_t last_ = 0;    ///< the highest number that may be run, when it was looked at last,
  std::uint64_t middle_ = 0;  ///< and the one between the next then and that
  std::uint64_t failed_job_ = 0;
  std::uint64_t failed_element_ = 0;

  patience patience_ = patience::usual;
  std::chrono::nanoseconds waited_{};         ///< for what it waits for, or waited for last, as far as it was looked at
  std::chrono::nanoseconds waited_before_{};  ///< for what it waited for before that
  clock::time_point stays_until_{};           ///< on the processor of the thread that it waits for
  std::size_t carried_ = 0;  ///< the bytes that the last element came with and left: the parent copies as many
  std::uint64_t published_;
  ring_writer ring_{replies_.ring};
  reply_writer result_;
  std::uint32_t rung_ = 0;
  std::uint64_t busy_ns_ = 0;
  std::uint64_t busy_since_ = 0;
  const volatile unsigned char* identity_;
};

}  // namespace procpool::detail
