// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <procpool/detail/posix/populate.hpp>
#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// The writer's account of a ring of ring_bytes bytes. Positions count bytes and never wrap; what lies at a position is
/// never broken by the end of the ring. Only its first ring_start bytes have memory from the beginning. The rest gets it
/// when it is needed; without it the ring ends earlier, and the writer says there that it goes on at the start.
class ring_writer {
 public:
  explicit ring_writer(std::byte* ring) noexcept : ring_(ring) {}

  std::uint64_t head() const noexcept { return head_; }

  /// Sees to it that `n` unbroken bytes will fit, at the latest when nothing is in use; `tail` is the position of the oldest
  /// byte that is. False if there is not so much memory: fits() may never hold then.
  bool prepare(std::size_t n, std::uint64_t tail) noexcept {
    const std::size_t offset = head_ % ring_bytes;
    // What is used again costs less than fresh memory.
    if (offset + n <= end() || (tail == head_ && n <= offset)) return true;
    // Without more memory they have to lie at the start, below the head: as offset > end() - n, there is room for half
    // of what there is at any rate, unless what was placed last stays in use.
    return grow(offset + n) || (2 * n <= end() && n + held_ <= offset);
  }

  /// The last `n` bytes stay in use until more is placed, and read.
  void hold(std::size_t n) noexcept { held_ = n; }

  /// Whether `n` unbroken bytes have room, where `tail` is the position of the oldest byte in use.
  bool fits(std::size_t n, std::uint64_t tail) const noexcept { return n <= end() && next(n) + n - tail <= ring_bytes; }

  /// Takes `n` unbroken bytes and returns their position; only where they fit. If that is not the head there is memory for
  /// a reply_header at the head, or not even room for one.
  std::uint64_t place(std::size_t n) noexcept {
    const std::uint64_t at = next(n);
    head_ = at + n;
    held_ = 0;
    return at;
  }

  /// Gives back all from `head` on: what was placed last.
  void rewind(std::uint64_t head) noexcept { head_ = head; }

  /// Nothing is in use: the next bytes lie at the start, unless they already do. Returns the head. Only where no reader
  /// goes by positions.
  std::uint64_t restart() noexcept { return head_ = round_up(head_, ring_bytes); }

 private:
  static constexpr std::size_t step = 32 * 1024;  ///< of memory
  static_assert(ring_start % lane_page == 0 && ring_bytes % step == 0);
  static_assert(2 * (sizeof(reply_header) + ring_payload) <= ring_bytes, "goes round, whatever is placed");

  /// Where the ring ends: behind its memory, but for the mark that says so.
  std::size_t end() const noexcept { return backed_ == ring_bytes ? ring_bytes : backed_ - sizeof(reply_header); }

  /// Where `n` bytes would lie: at the head, or at the start of the ring if its end would break them.
  std::uint64_t next(std::size_t n) const noexcept {
    const std::size_t offset = head_ % ring_bytes;
    return offset + n <= end() ? head_ : head_ + (ring_bytes - offset);
  }

  /// Has memory for all below `wanted`. False if there is none, or the ring is not so large.
  bool grow(std::size_t wanted) noexcept {
    if (wanted > ring_bytes) return false;
    const std::size_t more = std::min(ring_bytes, round_up(wanted + sizeof(reply_header), step));
    if (!populate(ring_ + backed_, more - backed_)) return false;
    backed_ = more;
    return true;
  }

  std::byte* ring_;
  std::size_t backed_ = ring_start;  ///< bytes from the start that have memory
  std::uint64_t head_ = 0;
  std::size_t held_ = 0;
};

}  // namespace procpool::detail
