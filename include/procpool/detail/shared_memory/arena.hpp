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

/// Large payloads: a heap in shared memory that only one process writes, so that it needs no lock between processes.
/// Created when first used. What was touched is kept for reuse, up to `keep` bytes.
class lane_arena {
 public:
  lane_arena(std::byte* base, std::size_t size, std::size_t keep) noexcept : base_(base), size_(size), keep_(keep) {}

  /// `n` bytes, payload_alignment-aligned and backed by memory; null if there is no room for them.
  std::byte* allocate(std::size_t n) noexcept {
    if (n > size_ || !(heap_ || create(n))) return nullptr;
    void* block = heap_->allocate_aligned(n, payload_alignment, std::nothrow);
    if (block == nullptr && grow(n)) block = heap_->allocate_aligned(n, payload_alignment, std::nothrow);
    if (block == nullptr) return nullptr;
    ++blocks_;
    return static_cast<std::byte*>(block);
  }

  void deallocate(std::byte* block) noexcept {
    heap_->deallocate(block);
    if (--blocks_ == 0 && populated_ > keep_) {
      heap_.reset();
      ::madvise(base_, size_, MADV_REMOVE);
      populated_ = 0;
    }
  }

  std::size_t blocks() const noexcept { return blocks_; }
  /// What the blocks take, with their bookkeeping.
  std::size_t used() const noexcept { return heap_ ? heap_->get_size() - heap_->get_free_memory() : 0; }

 private:
  using heap = boost::interprocess::basic_managed_external_buffer<
      char, boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family>,
      boost::interprocess::null_index>;

  /// The heap spans what has been needed, all of it backed by memory: its own marks may come to lie anywhere in it.
  bool create(std::size_t n) noexcept {
    const std::size_t first = populate(0, n);
    if (first == 0) return false;
    try {
      heap_.emplace(boost::interprocess::create_only, base_, first);
    } catch (const boost::interprocess::interprocess_exception&) {
      return false;
    }
    return true;
  }

  bool grow(std::size_t n) noexcept {
    const std::size_t more = populate(heap_->get_size(), n);
    if (more != 0) heap_->grow(more);
    return more != 0;
  }

  /// Has memory for `n` bytes more from `begin` on, and their bookkeeping; returns how many, 0 if there is none. Full
  /// memory must be an error here and not a signal at a later store (madvise(2), MADV_POPULATE_WRITE).
  std::size_t populate(std::size_t begin, std::size_t n) noexcept {
    for (const std::size_t unit : {step, lane_page}) {
      const std::size_t more = std::min(size_ - begin, round_up(n + slack, unit));
      if (more == 0 || !detail::populate(base_ + begin, more)) continue;
      populated_ = begin + more;
      return more;
    }
    return 0;
  }

  static constexpr std::size_t slack = 4096;                 ///< more than a block's own bookkeeping and alignment
  static constexpr std::size_t step = std::size_t{1} << 20;  ///< where there is so much

  std::byte* base_;
  std::size_t size_;
  std::size_t keep_;
  std::size_t populated_ = 0;
  std::size_t blocks_ = 0;
  std::optional<heap> heap_;
};

}  // namespace procpool::detail
