// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>

#include <procpool/detail/job.hpp>
#include <procpool/detail/shared_memory/backed.hpp>
#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// Reads one worker's replies, in order. Nothing that the worker writes is believed unchecked, and each byte that decides
/// anything is fetched once. By the thread that has the collecting role.
class reply_reader {
 public:
  struct worker_reply {
    reply_kind kind;
    const std::byte* data;
    std::size_t size;
    bool stable;            ///< the bytes are a private copy
    std::size_t count = 1;  ///< elements whose results lie one behind the other, `size` bytes each
  };

  /// `reply_bytes`: of the whole reply half.
  reply_reader(const request_half& requests, reply_half& replies, std::size_t reply_bytes)
      : requests_(requests),
        replies_(replies),
        reply_bytes_(reply_bytes),
        scratch_(static_cast<std::byte*>(std::aligned_alloc(payload_alignment, ring_payload))) {
    if (!scratch_) throw std::bad_alloc();
  }

  /// A new worker is to start, with an empty ring.
  void restart() noexcept {
    position_ = 0;
    series_ = {};
    backed_ = {};
    ring_backed_ = ring_start;
  }

  /// The position in the reply ring up to which it has been read.
  std::uint64_t position() const noexcept { return position_; }
  /// The bytes of the reply that was read last, as the worker says.
  std::size_t last_size() const noexcept { return last_size_; }

  /// The reply of the next published number, or those of up to `most`, where they are of one series; good until the next
  /// call. Nothing if it is malformed.
  std::optional<worker_reply> next(std::uint64_t number, std::uint64_t most = 1) noexcept {
    // One series may have ended, and the next before its first element, which then has a reply of its own.
    for (int ended = 0; ended != 3; ++ended) {
      std::uint64_t said_end;
      if (series_.room != 0) {
        said_end = end_of_series(series_.results - sizeof(reply_header)).load(std::memory_order_relaxed);
      } else {
        const auto header = next_header(number);
        if (!header) return std::nullopt;
        if (header->kind != static_cast<std::uint32_t>(reply_kind::series)) return single_reply(*header);
        if (!begin_series(*header)) return std::nullopt;
        said_end = header->arena;
      }
      const std::uint64_t full = series_.first + series_.room;
      if (const std::uint64_t end = said_end == 0 ? full : std::min(said_end, full); number < end) {
        const std::uint64_t place = number - series_.first;
        const auto count = static_cast<std::size_t>(std::min(most, end - number));
        const worker_reply slice{reply_kind::value, series_.results + place * series_.size, series_.size, false, count};
        // What lies behind these may not have been written yet.
        if (!ring_backed(static_cast<std::size_t>(slice.data - replies_.ring) + count * slice.size))
          return std::nullopt;
        if (place + count == series_.room) end_series();
        return slice;
      }
      end_series();
    }
    return std::nullopt;
  }

 private:
  /// As backed(), and looks only once at what the worker writes to again and again.
  [[gnu::noinline]] bool is_backed(const std::byte* data, std::size_t size) noexcept {
    if (backed_.data() <= data && data + size <= backed_.data() + backed_.size()) return true;
    if (!backed(data, size)) return false;
    backed_ = {data, size};
    return true;
  }

  /// The header at the read position, which has to be that of `number`.
  std::optional<reply_header> next_header(std::uint64_t number) noexcept {
    reply_header header;
    for (int wraps = 0;; ++wraps) {
      const std::size_t offset = position_ % ring_bytes;
      if (ring_bytes - offset >= sizeof(header)) {
        if (!ring_backed(offset + sizeof(header))) return std::nullopt;
        copy_header(replies_.ring + offset, header);
        if (header.number != reply_header::wrap) break;
      }
      if (wraps != 0 || offset == 0) return std::nullopt;
      position_ += ring_bytes - offset;
      if (!may_be_written(sizeof(header))) return std::nullopt;
    }
    if (header.number != number) return std::nullopt;
    return header;
  }

  /// The copy is made once, and only the copy is looked at. One word may change, that of a series.
  static void copy_header(std::byte* from, reply_header& to) noexcept {
    std::memcpy(&to, from, offsetof(reply_header, arena));
    to.arena = end_of_series(from).load(std::memory_order_relaxed);
    std::memcpy(&to.kind, from + offsetof(reply_header, kind), sizeof(to.kind));
    std::memcpy(&to.room, from + offsetof(reply_header, room), sizeof(to.room));
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }

  std::optional<worker_reply> single_reply(const reply_header& header) noexcept {
    if (header.kind < static_cast<std::uint32_t>(reply_kind::value) ||
        header.kind > static_cast<std::uint32_t>(reply_kind::out_of_memory)) {
      return std::nullopt;
    }
    last_size_ = static_cast<std::size_t>(header.size);
    const auto kind = static_cast<reply_kind>(header.kind);
    const std::size_t offset = position_ % ring_bytes + sizeof(header);
    if (header.arena != 0) {
      if (header.arena < region_layout::reply_arena || header.arena > reply_bytes_ ||
          header.size > reply_bytes_ - header.arena || header.arena % payload_alignment != 0) {
        return std::nullopt;
      }
      const std::byte* const data = reinterpret_cast<const std::byte*>(&replies_) + header.arena;
      const auto size = static_cast<std::size_t>(header.size);
      // The arena is far larger than the memory behind it: a size that nobody has written must cost none either.
      if (size > believed_size && !is_backed(data, size)) return std::nullopt;
      position_ += sizeof(header);
      return worker_reply{kind, data, size, false};
    }
    if (header.size > ring_payload || header.size > ring_bytes - offset ||
        !may_be_written(sizeof(header) + static_cast<std::size_t>(header.size)) ||
        !ring_backed(offset + static_cast<std::size_t>(header.size))) {
      return std::nullopt;
    }
    std::memcpy(scratch_.get(), replies_.ring + offset, static_cast<std::size_t>(header.size));
    position_ += sizeof(header) + round_up(static_cast<std::size_t>(header.size), alignof(reply_header));
    return worker_reply{kind, scratch_.get(), static_cast<std::size_t>(header.size), true};
  }

  /// A series stays in the ring until its end is known: its worker may still write to it.
  bool begin_series(const reply_header& header) noexcept {
    const std::size_t offset = position_ % ring_bytes + sizeof(header);
    if (header.size == 0 || header.size > series_bytes || header.room == 0 ||
        header.room > series_bytes / header.size || header.room * header.size > ring_bytes - offset ||
        !may_be_written(sizeof(header) + static_cast<std::size_t>(header.room * header.size))) {
      return false;
    }
    series_ = {header.number, header.room, static_cast<std::size_t>(header.size), replies_.ring + offset};
    return true;
  }
  void end_series() noexcept {
    position_ += sizeof(reply_header) + round_up(series_.room * series_.size, alignof(reply_header));
    series_ = {};
  }

  /// Whether the next `n` bytes can be a reply: what has not been taken is not written over, so that no byte of a header
  /// is read as part of something else.
  bool may_be_written(std::size_t n) const noexcept {
    return position_ + n - requests_.taken_bytes.load(std::memory_order_relaxed) <= ring_bytes;
  }

  /// Whether the reply ring has memory up to `end`. The worker sees to that before it writes; where it has not written, to
  /// read would make the system find memory.
  bool ring_backed(std::size_t end) noexcept {
    if (end <= ring_backed_) return true;
    if (!backed(replies_.ring + ring_backed_, end - ring_backed_)) return false;
    ring_backed_ = round_up(end, lane_page);
    return true;
  }

  struct free_deleter {
    void operator()(std::byte* bytes) const noexcept { std::free(bytes); }
  };

  static constexpr std::size_t believed_size = std::size_t{1} << 20;  ///< of a reply, without asking the system

  const request_half& requests_;
  reply_half& replies_;
  const std::size_t reply_bytes_;
  std::uint64_t position_ = 0;
  struct series {
    std::uint64_t first = 0;
    std::size_t room = 0;  ///< 0: none is being read
    std::size_t size = 0;
    std::byte* results = nullptr;
  };
  series series_;
  std::size_t last_size_ = 0;
  std::span<const std::byte> backed_;     ///< of its arena: has had memory since the worker was started
  std::size_t ring_backed_ = ring_start;  ///< bytes of the reply ring that are known to have memory
  std::unique_ptr<std::byte, free_deleter> scratch_;
};

}  // namespace procpool::detail
