// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/posix/futex.hpp>
#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

// The steps in which a parent and its worker race, each over the two halves of a lane. What orders memory between the two
// is here and nowhere else. The halves are template parameters, and the next three functions are found by them, so that
// a test can put others in their place.

inline void fence(const request_half&) noexcept { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void sleep_while(const request_half& requests, std::uint32_t wake) noexcept {
  futex_wait(requests.wake, wake, no_deadline, futex_scope::shared);
}
inline void wake_sleeper(request_half& requests) noexcept { futex_wake(requests.wake, futex_scope::shared, 1); }

namespace protocol {

// ---- the worker --------------------------------------------------------------------------------------------------

/// The highest number that may be run, as far as can be seen: claim() tells for certain.
template <class Requests>
std::uint64_t limit(const Requests& requests) noexcept {
  return requests.limit.load(std::memory_order_relaxed);
}
template <class Requests>
bool allowed(const Requests& requests, std::uint64_t number) noexcept {
  return limit(requests) >= number;
}

/// The next number is this worker's to run; false if it has been taken back.
/// The claim is visible before `limit` is looked at again, and take_back() lowers `limit` before it looks at the claim:
/// at least one sees the other, so an element is never both run and taken back.
template <class Requests, class Replies>
bool claim(const Requests& requests, Replies& replies, std::uint64_t number) noexcept {
  replies.claimed.store(number, std::memory_order_seq_cst);
  if (requests.limit.load(std::memory_order_seq_cst) >= number) return true;
  replies.claimed.store(number - 1, std::memory_order_relaxed);
  return false;
}

/// Whether the chunk in the slot begins with `number`, which has been claimed.
template <class Requests>
bool begins(const Requests& requests, std::size_t slot, std::uint64_t number) noexcept {
  return requests.slots[slot].first.load(std::memory_order_relaxed) == number;
}

/// The reply to `number` is in place.
template <class Replies>
void publish(Replies& replies, std::uint64_t number) noexcept {
  replies.published.store(number, std::memory_order_release);
}

/// As publish(number), then claim(number + 1). Who sees the claim sees the publication.
template <class Requests, class Replies>
bool publish_and_claim(const Requests& requests, Replies& replies, std::uint64_t number) noexcept {
  replies.published.store(number, std::memory_order_release);
  replies.claimed.store(number + 1, std::memory_order_release);
  fence(requests);
  if (requests.limit.load(std::memory_order_acquire) > number) return true;
  replies.claimed.store(number, std::memory_order_relaxed);
  return false;
}

/// What the parent's last set_sleeping() said: either this sees it, or the parent, which looks afterwards, sees all that
/// has been published.
template <class Requests>
std::uint32_t sleeping(const Requests& requests) noexcept {
  fence(requests);
  return requests.sleeping.load(std::memory_order_relaxed);
}

/// Sleeps until the parent wakes the worker, unless `condition` holds: either this sees what the parent has changed, or
/// the parent's wake(), which comes afterwards, sees that the worker sleeps. May return for no reason.
template <class Requests, class Replies, class Condition>
void sleep_unless(const Requests& requests, Replies& replies, sleeping_for what, Condition condition) {
  const std::uint32_t seen = requests.wake.load(std::memory_order_relaxed);
  replies.asleep.store(what, std::memory_order_relaxed);
  fence(requests);
  if (!condition()) sleep_while(requests, seen);
  replies.asleep.store(sleeping_for::nothing, std::memory_order_relaxed);
}

/// Says again what was claimed and published last, should somebody have overwritten it.
template <class Replies>
void say_again(Replies& replies, std::uint64_t claimed, std::uint64_t published) noexcept {
  replies.published.store(published, std::memory_order_relaxed);
  replies.claimed.store(claimed, std::memory_order_relaxed);
}

/// `number`, which has been claimed, starts at `since`.
template <class Replies>
void start(Replies& replies, std::uint64_t number, std::uint64_t since) noexcept {
  replies.timed_since.store(since, std::memory_order_relaxed);
  replies.timed.store(number, std::memory_order_release);
}

template <class Requests>
bool told_to_leave(const Requests& requests) noexcept {
  return requests.leave.load(std::memory_order_acquire) != 0;
}

/// Told to leave, and there is no `number` to run before. What is allowed is final by then, so it is looked at last.
template <class Requests>
bool dismissed(const Requests& requests, std::uint64_t number) noexcept {
  return told_to_leave(requests) && !allowed(requests, number);
}

/// The highest number whose reply the parent has read, and the position in the reply ring up to which it has: what lies
/// below may be written again.
template <class Requests>
std::uint64_t taken(const Requests& requests) noexcept {
  return requests.taken.load(std::memory_order_acquire);
}
template <class Requests>
std::uint64_t taken_bytes(const Requests& requests) noexcept {
  return requests.taken_bytes.load(std::memory_order_acquire);
}

// ---- the parent --------------------------------------------------------------------------------------------------

/// A chunk that begins with `number` is to lie in the slot. The one behind may still name a number that was taken back
/// and is now in this chunk: it must match none.
template <class Requests>
void begin(Requests& requests, std::size_t slot, std::uint64_t number) noexcept {
  requests.slots[(slot + 1) % std::size(requests.slots)].first.store(0, std::memory_order_relaxed);
  requests.slots[slot].first.store(number, std::memory_order_relaxed);
}

/// Everything up to `last` is in place and may be run. The worker still has to be woken.
template <class Requests>
void allow(Requests& requests, std::uint64_t last) noexcept {
  requests.limit.store(last, std::memory_order_release);
}

/// Takes back what is allowed above `keep`, up to `last`, if the worker has started none of it. If it has, nothing
/// changes, but it may have stepped back in between: it has to be woken.
template <class Requests, class Replies>
bool take_back(Requests& requests, const Replies& replies, std::uint64_t keep, std::uint64_t last) noexcept {
  requests.limit.store(keep, std::memory_order_seq_cst);
  if (replies.claimed.load(std::memory_order_seq_cst) <= keep) return true;
  requests.limit.store(last, std::memory_order_release);
  return false;
}

/// Nothing more will be allowed.
template <class Requests>
void tell_to_leave(Requests& requests) noexcept {
  requests.leave.store(1, std::memory_order_release);
}

/// Whether the worker sleeps for `what`, which has changed, and has to be woken. If it says that it does not it sees the
/// change before it sleeps.
template <class Requests, class Replies>
bool asleep(Requests& requests, const Replies& replies, sleeping_for what) noexcept {
  fence(requests);
  return replies.asleep.load(std::memory_order_relaxed) == what;
}

/// Wakes the worker if it sleeps for `what`. False if it says that it does not.
template <class Requests, class Replies>
bool wake(Requests& requests, const Replies& replies, sleeping_for what) noexcept {
  if (!asleep(requests, replies, what)) return false;
  requests.wake.fetch_add(1, std::memory_order_relaxed);
  wake_sleeper(requests);
  return true;
}

/// Wakes the worker if it sleeps, whatever it says: `asleep` may have been overwritten.
template <class Requests>
void wake_in_any_case(Requests& requests) noexcept {
  requests.wake.fetch_add(1, std::memory_order_relaxed);
  wake_sleeper(requests);
}

/// From now on the worker is to ring when it publishes, once for this value; 0: not to.
/// What is published afterwards is rung for, or seen by whoever looks afterwards.
template <class Requests>
void set_sleeping(Requests& requests, std::uint32_t value) noexcept {
  requests.sleeping.store(value, std::memory_order_relaxed);
  fence(requests);
}

/// The highest number that was started, or is about to be and will be stepped back from. While the worker lives this is
/// a guess, which take_back() makes sure of; what is published, looked at afterwards, is one less or more.
template <class Replies>
std::uint64_t claimed(const Replies& replies) noexcept {
  return replies.claimed.load(std::memory_order_acquire);
}

/// Asks the element with that number to stop by itself.
template <class Requests>
void ask_to_stop(Requests& requests, std::uint64_t number) noexcept {
  requests.stop.store(number, std::memory_order_relaxed);
}

/// The last number that start() has told of; the time it told, read afterwards, is that number's or a later one's.
template <class Replies>
std::uint64_t timed(const Replies& replies) noexcept {
  return replies.timed.load(std::memory_order_acquire);
}

/// The highest number whose reply can be read.
template <class Replies>
std::uint64_t published(const Replies& replies) noexcept {
  return replies.published.load(std::memory_order_acquire);
}
/// The same, if it is one between `settled` and `last`. Nothing if the worker says what cannot be.
template <class Replies>
std::optional<std::uint64_t> published(const Replies& replies, std::uint64_t settled, std::uint64_t last) noexcept {
  // In this order: a worker that goes on meanwhile has published more than it had when it claimed.
  const std::uint64_t started = claimed(replies);
  const std::uint64_t seen = published(replies);
  if (seen < settled || seen > last || started < settled || started > seen + 1) return std::nullopt;
  return seen;
}

/// Whether the worker says no more than that it has published what is settled, and may run the next. A guess: what is
/// published meanwhile is seen by the next look, or rung for.
template <class Replies>
bool quiet(const Replies& replies, std::uint64_t settled) noexcept {
  const std::uint64_t started = claimed(replies);
  return published(replies) == settled && (started == settled || started == settled + 1);
}

/// Replies up to `number`, and the reply ring up to `bytes`, have been read. The worker still has to be woken.
template <class Requests>
void take(Requests& requests, std::uint64_t number, std::uint64_t bytes) noexcept {
  requests.taken_bytes.store(bytes, std::memory_order_release);
  requests.taken.store(number, std::memory_order_release);
}

}  // namespace protocol
}  // namespace procpool::detail
