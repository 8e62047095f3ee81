// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// The writer's account of a ring of ring_bytes bytes. Positions count bytes and never wrap; what lies at a position is
/// never broken by the end of the ring.
class ring_writer {
 public:
  std::uint64_t head() const noexcept { return head_; }

  /// Whether `n` unbroken bytes have room, where `tail` is the position of the oldest byte in use.
  bool fits(std::size_t n, std::uint64_t tail) const noexcept {
    return n <= ring_bytes && next(n) + n - tail <= ring_bytes;
  }

  /// Takes `n` unbroken bytes and returns their position; only where they fit.
  std::uint64_t place(std::size_t n) noexcept {
    const std::uint64_t at = next(n);
    head_ = at + n;
    return at;
  }

  /// Gives back all from `head` on: what was placed last.
  void rewind(std::uint64_t head) noexcept { head_ = head; }

 private:
  /// Where `n` bytes would lie: at the head, or at the start of the ring if its end would break them.
  std::uint64_t next(std::size_t n) const noexcept {
    const std::size_t offset = head_ % ring_bytes;
    return offset + n <= ring_bytes ? head_ : head_ + (ring_bytes - offset);
  }

  std::uint64_t head_ = 0;
};

}  // namespace procpool::detail
