// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>
#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

#include <boost/interprocess/mapped_region.hpp>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/posix/process.hpp>
#include <procpool/detail/shared_memory/arena.hpp>
#include <procpool/detail/shared_memory/layout.hpp>
#include <procpool/detail/shared_memory/shared_mapping.hpp>

namespace procpool::detail {

/// Where large arguments are encoded: memory that the parent alone writes, its bookkeeping too, and that all workers read,
/// at the same address. So a chunk can be posted to any of them, taken back, and run again elsewhere, and its bytes stay
/// where they are. In the parent any thread may use it.
class argument_memory final : public large_memory {
 public:
  /// Of that size where there is so much address space, else of none. More than `keep` bytes are in use only for a single
  /// block: what waits in large numbers may as well wait on the heap, from where its memory goes back to the system.
  argument_memory(std::size_t bytes, std::size_t keep)
      : mapping_(map_shared(bytes + 2 * lane_page)), size_(mapping_ ? bytes : 0), keep_(keep) {
    if (!mapping_) return;
    ::madvise(mapping_->get_address(), mapping_->get_size(), MADV_DONTDUMP);
    begin_ = static_cast<std::byte*>(mapping_->get_address()) + lane_page;
    arena_.emplace(begin_, size_, keep_);
  }

  std::byte* allocate(std::size_t n) noexcept override {
    const std::lock_guard lock(mutex_);
    if (!arena_ || released_ || (arena_->blocks() != 0 && (n > keep_ || arena_->used() > keep_ - n))) return nullptr;
    return arena_->allocate(n);
  }

  void deallocate(std::byte* block) noexcept override {
    if (current_process() != owner_) return;  // a fork of the parent has none of this (madvise(2), MADV_DONTFORK)
    std::optional<boost::interprocess::mapped_region> last;
    const std::lock_guard lock(mutex_);
    arena_->deallocate(block);
    if (released_) last = unmap();
  }

  /// Whether that is where these bytes lie.
  bool holds(const std::byte* bytes) const noexcept {
    return reinterpret_cast<std::uintptr_t>(bytes) - reinterpret_cast<std::uintptr_t>(begin_) < size_;
  }

  /// In the parent, once the zygotes have been forked.
  void settle_in() noexcept {
    if (!mapping_) return;
    auto* const first = static_cast<std::byte*>(mapping_->get_address());
    ::madvise(first, mapping_->get_size(), MADV_DONTFORK);
    ::mprotect(first, lane_page, PROT_NONE);
    ::mprotect(begin_ + size_, lane_page, PROT_NONE);
  }

  /// In a worker.
  bool enter() noexcept {
    if (!mapping_) return true;
    void* const first = mapping_->get_address();
    return ::madvise(first, mapping_->get_size(), MADV_DONTFORK) == 0 &&
           ::mprotect(first, mapping_->get_size(), PROT_NONE) == 0 && ::mprotect(begin_, size_, PROT_READ) == 0;
  }

  /// Gives out no more. Unmapped as soon as nothing lies there: a thread may be about to encode what the pool will refuse.
  void release() noexcept {
    std::optional<boost::interprocess::mapped_region> last;
    const std::lock_guard lock(mutex_);
    released_ = true;
    last = unmap();
  }

 private:
  /// What is to be unmapped without the lock, if anything.
  std::optional<boost::interprocess::mapped_region> unmap() noexcept {
    if (!arena_ || arena_->blocks() != 0) return std::nullopt;
    arena_.reset();
    return std::exchange(mapping_, std::nullopt);
  }

  const pid_t owner_ = current_process();
  std::optional<boost::interprocess::mapped_region> mapping_;  ///< a guard page, the arena, and another one
  std::size_t size_;                                           ///< of the arena
  std::size_t keep_;
  std::byte* begin_ = nullptr;
  std::mutex mutex_;
  std::optional<lane_arena> arena_;
  bool released_ = false;
};

}  // namespace procpool::detail
