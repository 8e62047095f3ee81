// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <utility>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/posix/spin.hpp>
#include <procpool/detail/shared_memory/arena.hpp>
#include <procpool/detail/shared_memory/lane_protocol.hpp>
#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// Takes the result of one element in the worker: a small one in private memory, a large one straight in the arena of
/// the reply half, where it stays until the parent has taken it.
class reply_writer final : public byte_writer {
 public:
  /// `requests` tells what the parent has taken.
  reply_writer(lane_arena arena, const request_half& requests)
      : arena_(std::move(arena)), requests_(requests), small_(std::make_unique_for_overwrite<storage>()) {
    restart();
  }

  /// Whether the bytes lie in the arena.
  bool large() const noexcept { return block_ != nullptr; }

  /// The arena block that the bytes lie in, which is the reply's from now on; null while they are small.
  const std::byte* hand_over(std::uint64_t number) {
    if (block_ != nullptr) handed_over_.push_back({number, block_});
    return block_;
  }

  /// Empty again, for the next element. What has not been handed over must have been abandoned.
  void restart() noexcept {
    truncate(0, 0);
    block_ = nullptr;
    data_ = small_->bytes;
    capacity_ = ring_payload;
  }

  void abandon() noexcept {
    if (block_ != nullptr) arena_.deallocate(block_);
    restart();
  }

  /// Frees what the parent has taken.
  void reclaim() noexcept {
    const std::uint64_t taken = protocol::taken(requests_);
    while (!handed_over_.empty() && handed_over_.front().number <= taken) {
      arena_.deallocate(handed_over_.front().bytes);
      handed_over_.pop_front();
    }
  }

 private:
  struct storage {
    alignas(payload_alignment) std::byte bytes[ring_payload];
  };
  struct large_result {
    std::uint64_t number;
    std::byte* bytes;
  };

  void grow(std::size_t needed) override {
    reclaim();
    const std::size_t doubled = block_ == nullptr ? needed : std::max(needed, capacity_ * 2);
    std::size_t got = doubled;
    std::byte* fresh = arena_.allocate(got);
    if (fresh == nullptr) fresh = arena_.allocate(got = needed);
    // Full of results that the parent has yet to take: it takes them as soon as it sees them.
    while (fresh == nullptr && !handed_over_.empty()) {
      const std::uint64_t next = handed_over_.front().number;
      while (!spin_until([&] { return protocol::taken(requests_) >= next; })) {
      }
      reclaim();
      fresh = arena_.allocate(got);
    }
    if (fresh == nullptr) throw make_error<out_of_shared_memory>("a result of " + std::to_string(needed) + " bytes");
    if (size_ != 0) std::memcpy(fresh, data_, size_);
    if (block_ != nullptr) arena_.deallocate(block_);
    data_ = block_ = fresh;
    capacity_ = got;
  }

  lane_arena arena_;
  const request_half& requests_;
  std::unique_ptr<storage> small_;
  std::byte* block_ = nullptr;
  std::deque<large_result> handed_over_;
};

}  // namespace procpool::detail
