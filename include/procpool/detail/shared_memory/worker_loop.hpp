// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>

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
class worker_loop {
 public:
  worker_loop(const request_half& requests, reply_half& replies, std::size_t arena_bytes, int socket,
              const doorbell& bell, growth_meter growth = growth_meter(0))
      : requests_(requests),
        replies_(replies),
        socket_(socket),
        bell_(bell),
        growth_(std::move(growth)),
        arrays_(socket, requests),
        next_slot_(requests.first_slot),
        published_(requests.before_first),
        result_({reinterpret_cast<std::byte*>(&replies) + region_layout::reply_arena, arena_bytes}, requests),
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
  void announce() const noexcept { bell_.ring(); }

 private:
  using clock = std::chrono::steady_clock;

  /// A worker that waits so long has nothing to do: if work were there, even a sleeper would be woken sooner.
  static constexpr auto long_wait = std::chrono::microseconds(200);

  void run_elements() {
    for (;;) {
      const std::uint64_t number = published_ + 1;
      if (!protocol::allowed(requests_, number) && !wait_for(number)) return;
      if (!protocol::claim(requests_, replies_, number)) continue;
      if (busy_since_ == 0) busy();
      hear_of_arrays();
      if (protocol::begins(requests_, next_slot_, number)) begin_chunk(number);
      run_element(number);
      arrays_.discard(number);
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
    idle();
    sleep_until([&] { return protocol::told_to_leave(requests_); }, sleeping_for::work);
  }

  /// Looks for a while, as a sleep costs some hundred times what a look costs, then sleeps until the parent wakes it.
  template <class Condition>
  void sleep_until(Condition condition, sleeping_for what) {
    const auto since = clock::now();
    if (spin_until(condition, patience_)) {
      patience_ = patience::usual;
      return;
    }
    do {
      hear_of_arrays();
      say_again(what);
      protocol::sleep_unless(requests_, replies_, what, [&] { return condition() || arrays_.news(); });
    } while (!condition());
    patience_ = clock::now() - since < long_wait ? patience::usual : patience::little;
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
    const auto* half = reinterpret_cast<const std::byte*>(&requests_);
    callable_ = half + slot.callable;
    callable_size_ = slot.callable_size;
    arguments_ = half + slot.arguments;
    stride_ = slot.stride;
    ends_ = slot.ends == 0 ? nullptr : reinterpret_cast<const std::uint64_t*>(half + slot.ends);
    kept_.reset();
    arrays_.begin_chunk();
    job_ = slot.job;
    stop_on_failure_ = slot.stop_on_failure != 0;
    timed_ = slot.timed != 0;
    code_known_ = code_map::contains(reinterpret_cast<const void*>(slot.code));
  }

  void run_element(std::uint64_t number) {
    if (timed_) protocol::start(replies_, number, now_ns());
    const std::uint64_t element = element_ + (number - first_);
    reply_kind kind = reply_kind::skipped;
    if (!(stop_on_failure_ && job_ == failed_job_ && element > failed_element_)) {
      kind = call(number - first_);
      if (!ring_.prepare(reply_room(), protocol::taken_bytes(requests_))) {
        result_.abandon();
        kind = reply_kind::out_of_memory;
      }
      if (stop_on_failure_ && kind != reply_kind::value) {
        failed_job_ = job_;
        failed_element_ = element;
      }
    }
    if (growth_.past_limit()) {
      outgrown_ = true;  // the parent sees it when it sees that this element has ended
      say_state();
    }
    publish(number, kind);
  }

  byte_reader arguments_of(std::uint64_t i) noexcept {
    const std::size_t begin = ends_ == nullptr ? i * stride_ : i == 0 ? 0 : ends_[i - 1];
    const std::size_t end = ends_ == nullptr ? begin + stride_ : ends_[i];
    return {arguments_ + begin, end - begin, &arrays_};
  }

  reply_kind call(std::uint64_t i) {
    byte_reader arguments = arguments_of(i);
    call_frame frame{byte_reader(callable_, callable_size_, &arrays_), arguments, result_, kept_};
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
    // A process that the task forked and that came back from it is not this worker (madvise(2), MADV_WIPEONFORK).
    if (*identity_ == 0) ::_exit(EXIT_SUCCESS);
    flush_standard_streams();
    return kind;
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
    std::byte* at = place(reply_room());
    const std::byte* const block = result_.hand_over(number);
    if (block != nullptr) header.arena = static_cast<std::uint64_t>(block - reinterpret_cast<std::byte*>(&replies_));
    std::memcpy(at, &header, sizeof(header));
    if (block == nullptr && result_.size() != 0) std::memcpy(at + sizeof(header), result_.data(), result_.size());
    result_.restart();
    published_ = number;
    const std::uint32_t sleeping = protocol::publish(requests_, replies_, number);
    if (sleeping != 0 && sleeping != rung_) {
      rung_ = sleeping;
      bell_.ring();
    }
  }

  /// Room in the ring; waits until the parent has read enough of it.
  std::byte* place(std::size_t n) {
    const auto fits = [&] { return ring_.fits(n, protocol::taken_bytes(requests_)); };
    if (!fits()) sleep_until(fits, sleeping_for::room);
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
  const doorbell& bell_;
  const growth_meter growth_;
  bool outgrown_ = false;
  worker_arrays arrays_;

  // The chunk that is being run.
  std::size_t next_slot_;
  std::uint64_t first_ = 0;
  std::uint64_t element_ = 0;
  task_code code_ = nullptr;
  bool code_known_ = false;
  const std::byte* callable_ = nullptr;
  std::size_t callable_size_ = 0;
  const std::byte* arguments_ = nullptr;
  std::size_t stride_ = 0;
  const std::uint64_t* ends_ = nullptr;
  std::shared_ptr<void> kept_;
  std::uint64_t job_ = 0;
  bool stop_on_failure_ = false;
  bool timed_ = false;
  std::uint64_t failed_job_ = 0;
  std::uint64_t failed_element_ = 0;

  patience patience_ = patience::usual;
  std::uint64_t published_;
  ring_writer ring_{replies_.ring};
  reply_writer result_;
  std::uint32_t rung_ = 0;
  std::uint64_t busy_ns_ = 0;
  std::uint64_t busy_since_ = 0;
  const volatile unsigned char* identity_;
};

}  // namespace procpool::detail
