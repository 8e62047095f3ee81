// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>

#include <boost/interprocess/indexes/null_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

#include <procpool/detail/posix/populate.hpp>
#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// The large payloads of one half of a lane: a heap in shared memory that only the half's writer allocates from, so that
/// it needs no lock. Created when first used. What was touched is kept for reuse, up to `keep_bytes`.
class lane_arena {
 public:
  static constexpr std::size_t keep_bytes = std::size_t{128} << 20;

  lane_arena(std::byte* base, std::size_t size) noexcept : base_(base), size_(size) {}

  /// `n` bytes, payload_alignment-aligned and backed by memory; null if there is no room for them.
  std::byte* allocate(std::size_t n) noexcept {
    if (n > size_ || !(heap_ || create(n))) return nullptr;
    void* block = heap_->allocate_aligned(n, payload_alignment, std::nothrow);
    if (block == nullptr && grow(n)) block = heap_->allocate_aligned(n, payload_alignment, std::nothrow);
    if (block == nullptr) return nullptr;
    auto* const bytes = static_cast<std::byte*>(block);
    if (!populate(static_cast<std::size_t>(bytes - base_) + n)) {
      heap_->deallocate(block);
      return nullptr;
    }
    ++blocks_;
    return bytes;
  }

  void deallocate(std::byte* block) noexcept {
    heap_->deallocate(block);
    if (--blocks_ == 0 && populated_ > keep_bytes) {
      heap_.reset();
      ::madvise(base_, size_, MADV_REMOVE);
      populated_ = 0;
    }
  }

  std::size_t blocks() const noexcept { return blocks_; }

 private:
  using heap = boost::interprocess::basic_managed_external_buffer<
      char, boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family>,
      boost::interprocess::null_index>;

  /// The heap spans no more than has been needed, so that its end mark does not touch a page far away.
  bool create(std::size_t n) noexcept {
    const std::size_t first = std::min(size_, round_up(n + slack, step));
    if (!populate(lane_page)) return false;
    try {
      heap_.emplace(boost::interprocess::create_only, base_, first);
    } catch (const boost::interprocess::interprocess_exception&) {
      return false;
    }
    return true;
  }

  bool grow(std::size_t n) noexcept {
    const std::size_t more = std::min(size_ - heap_->get_size(), round_up(n + slack, step));
    if (more == 0) return false;
    heap_->grow(more);
    return true;
  }

  /// Full memory must be an error here and not a signal at a later store (madvise(2), MADV_POPULATE_WRITE).
  bool populate(std::size_t end) noexcept {
    if (end <= populated_) return true;
    const std::size_t begin = populated_ / lane_page * lane_page;
    const std::size_t length = std::min(round_up(end, lane_page), size_) - begin;
    if (!detail::populate(base_ + begin, length)) return false;
    populated_ = begin + length;
    return true;
  }

  static constexpr std::size_t slack = 4096;  ///< more than a block's own bookkeeping and alignment
  static constexpr std::size_t step = std::size_t{1} << 20;

  std::byte* base_;
  std::size_t size_;
  std::size_t populated_ = 0;
  std::size_t blocks_ = 0;
  std::optional<heap> heap_;
};

}  // namespace procpool::detail
