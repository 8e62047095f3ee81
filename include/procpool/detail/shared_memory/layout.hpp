// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <procpool/detail/codec/bytes.hpp>

namespace procpool::detail {

// A lane joins the parent and one worker. It is two halves with a guard page before each:
//
//   request half   written by the parent only; the worker maps it read-only
//   reply half     written by that worker only
//
// Every word has one writer, nothing is locked, and the truth about a task is in the parent's private memory, so a
// worker that dies at any instruction leaves nothing to repair. Elements (tasks, or single elements of a chunk) are
// numbered from 1 in the order in which a lane gets them, across all workers that the lane ever has:
//
//   published <= claimed <= published + 1 and claimed <= limit, once the worker has stepped back from a lowered limit
//
// A number up to `published` is done and its reply lies in the reply ring; `claimed` == `published` + 1 was started; a
// number above that never started. A number is used again only after its element was taken back before it started.

inline constexpr std::size_t cache_line = 64;
inline constexpr std::size_t lane_page = 4096;          ///< halves start at a multiple of this
inline constexpr std::size_t slot_count = 256;          ///< chunks that a lane can hold
inline constexpr std::size_t ring_bytes = 256 * 1024;   ///< of each half: small payloads, in order
inline constexpr std::size_t ring_start = 4 * 1024;     ///< has memory before it is used; the rest of a ring when it is
inline constexpr std::size_t ring_payload = 32 * 1024;  ///< a larger one lies in the arena of its half
inline constexpr std::size_t series_bytes = 8 * 1024;   ///< of the results of a series, at most
inline constexpr std::size_t failure_text = 1024;       ///< of the reason why an initializer failed
inline constexpr std::size_t most_kept_arrays = 16;     ///< shared arrays that a worker keeps from element to element

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free,
              "procpool: words in memory shared between processes must be lock-free");

/// One chunk. Written before `limit` is raised to its numbers; read after one of them has been claimed.
struct alignas(cache_line) request_slot {
  std::atomic<std::uint64_t> first;  ///< the number of its first element; 0: no chunk begins here
  std::uint64_t job;                 ///< serial number of the job, for skipping behind a failed element
  std::uint64_t element;             ///< index in the job of its first element
  std::uint64_t count;               ///< of its elements, or more: the last ones may have been taken back
  std::uint64_t code;                ///< address of the task's code
  // Where something lies is told by its address: in this half, or, large arguments, in the argument_memory.
  std::uint64_t callable;  ///< where the encoded callable lies
  std::uint64_t callable_size;
  std::uint64_t arguments;        ///< where the encoded arguments lie
  std::uint64_t stride;           ///< size of each element's arguments, where `ends` is 0
  std::uint64_t ends;             ///< where a table lies that tells at what byte each element's arguments end; or 0
  std::uint32_t stop_on_failure;  ///< not to run what lies behind a failed element of the job
  std::uint32_t timed;            ///< to tell when each element starts
  std::uint32_t together;         ///< its elements are awaited together: to ring behind the last one, not behind each
  std::uint32_t result_size;      ///< of each result, in bytes, where elements may run as a series; or 0
};

/// Written by the parent only.
struct request_half {
  // What the worker polls: one cache line.
  alignas(cache_line) std::atomic<std::uint64_t> limit;  ///< the highest number that may be run
  std::atomic<std::uint32_t> wake;                       ///< futex word: changes whenever the worker should look again
  std::atomic<std::uint32_t> leave;       ///< not 0: once it has run all up to `limit`, the worker leaves in good order
  std::atomic<std::uint64_t> stop;        ///< the number of the element that is asked to stop
  std::atomic<std::uint32_t> array_news;  ///< changes when shared arrays were sent, or are to be let go
  std::atomic<int> awaited_on;  ///< 1 more than the processor on which a thread waits for what it posted, or 0

  // What the worker looks at when it publishes.
  alignas(cache_line)
      std::atomic<std::uint32_t> sleeping;  ///< 0: the parent looks by itself; else ring once (worker_bells::of)
  std::atomic<std::uint64_t> taken;         ///< the highest number whose reply has been taken
  std::atomic<std::uint64_t> taken_bytes;   ///< the position in the reply ring up to which it has been read

  alignas(cache_line) std::uint64_t generation;  ///< of the worker that is to start; 0, 1, …
  std::uint64_t before_first;                    ///< the number below its first one
  std::uint64_t first_slot;                      ///< where its first chunk will be
  std::uint64_t kept_bytes;                      ///< of memory for large results that it keeps while there are none

  alignas(cache_line) std::atomic<std::uint64_t> kept_arrays[most_kept_arrays];  ///< their identities; 0: none
  std::atomic<std::uint64_t> passing_arrays;  ///< what others were sent for above this number was taken back

  request_slot slots[slot_count];
  alignas(lane_page) std::byte ring[ring_bytes];
};

enum class worker_state : std::uint32_t {
  starting = 0,
  ready = 1,     ///< the initializer has ended; the worker takes tasks
  failed = 2,    ///< the initializer threw
  leaving = 3,   ///< the finalizer runs
  left = 4,      ///< left in good order
  outgrown = 5,  ///< has grown beyond max_memory_per_child: it claims nothing more, and waits for `leave`
};

enum class sleeping_for : std::uint32_t {
  nothing = 0,  ///< it is awake
  work = 1,     ///< `limit` to be raised, or `leave`
  room = 2,     ///< `taken_bytes` to be raised
};

/// Before the payload of each reply in the ring. That of a series stands before the results of several elements with
/// consecutive numbers, which lie one behind the other, each of them published for itself.
struct reply_header {
  std::uint64_t number;  ///< of the element, or of the first; `wrap` where the rest of the ring is unused
  std::uint64_t size;    ///< of the payload, or of each result, in bytes
  /// Where the payload lies, from the start of the half; 0: behind this header. Of a series: the number behind its last
  /// element, once it has ended before all its room was used; 0 before that. The one word of a header that changes.
  std::uint64_t arena;
  std::uint32_t kind;  ///< a reply_kind
  std::uint32_t room;  ///< results that a series has room for

  static constexpr std::uint64_t wrap = ~std::uint64_t{0};
};
static_assert(sizeof(reply_header) == 32);

/// That word of a series whose header lies at `header`.
inline std::atomic_ref<std::uint64_t> end_of_series(std::byte* header) noexcept {
  return std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(header + offsetof(reply_header, arena)));
}

/// What the worker says of the fatal signal that it is about to die of.
struct crash_record {
  static constexpr std::uint32_t most_frames = 64;

  std::atomic<std::uint32_t> signal;  ///< 0: there is no report; written when `address` and the first frame are there
  std::atomic<std::uint32_t> frame_count;          ///< of `frames` that are there
  std::atomic<std::uint64_t> address;              ///< that it must not have used; 0 if that was not it
  std::atomic<std::uint64_t> frames[most_frames];  ///< where it was, then where that was called from, and so on
};

/// Written by the worker only (and by the parent while the lane has none).
struct reply_half {
  alignas(cache_line) std::atomic<std::uint64_t> published;  ///< the highest number whose reply is there
  std::atomic<std::uint64_t> claimed;                        ///< the highest number that was started
  std::atomic<std::uint64_t> timed;                          ///< the number of the last timed element that was started
  std::atomic<std::uint64_t> timed_since;                    ///< CLOCK_MONOTONIC in ns when it was
  alignas(cache_line) std::atomic<sleeping_for> asleep;      ///< what the worker has to be woken for

  alignas(cache_line) std::atomic<worker_state> state;
  std::atomic<std::uint64_t> busy_ns;     ///< time spent running tasks, up to when it last fell idle
  std::atomic<std::uint64_t> busy_since;  ///< CLOCK_MONOTONIC in ns since when it is busy; 0 while it is idle
  std::uint64_t failure_size;             ///< of the text below
  char failure[failure_text];             ///< why the initializer failed
  crash_record crash;

  alignas(lane_page) std::byte ring[ring_bytes];
};

/// Rounds up to a multiple of `unit`.
constexpr std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

/// Where things lie in a region of `lanes` lanes whose halves each hold an arena of `arena_bytes` bytes.
struct region_layout {
  std::size_t lanes = 0;
  std::size_t arena_bytes = 0;

  static constexpr std::size_t request_arena = round_up(sizeof(request_half), lane_page);  ///< offset in the half
  static constexpr std::size_t reply_arena = round_up(sizeof(reply_half), lane_page);

  /// Up to here a half has memory before its lane has a worker.
  static constexpr std::size_t request_start = offsetof(request_half, ring) + ring_start;
  static constexpr std::size_t reply_start = offsetof(reply_half, ring) + ring_start;

  constexpr std::size_t request_bytes() const { return request_arena + arena_bytes; }
  constexpr std::size_t reply_bytes() const { return reply_arena + arena_bytes; }
  constexpr std::size_t lane_bytes() const { return 2 * lane_page + request_bytes() + reply_bytes(); }
  constexpr std::size_t bytes() const { return lanes * lane_bytes() + lane_page; }

  constexpr std::size_t request_at(std::size_t lane) const { return lane * lane_bytes() + lane_page; }
  constexpr std::size_t reply_at(std::size_t lane) const { return request_at(lane) + request_bytes() + lane_page; }
};

}  // namespace procpool::detail
