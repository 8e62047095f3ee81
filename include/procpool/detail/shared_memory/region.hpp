// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include <boost/interprocess/mapped_region.hpp>

#include <procpool/detail/posix/populate.hpp>
#include <procpool/detail/shared_memory/argument_memory.hpp>
#include <procpool/detail/shared_memory/kept_memory.hpp>
#include <procpool/detail/shared_memory/layout.hpp>
#include <procpool/detail/shared_memory/shared_mapping.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// The memory that a pool shares with its workers: one anonymous mapping for all lanes and one for large arguments,
/// without names, so that they go with the last process that maps them. Reserved large, and backed by the kernel only
/// where they have been touched.
class shared_region {
 public:
  /// Of the lanes, `workers` are in use at a time.
  explicit shared_region(std::size_t workers, std::size_t spare_lanes = 0)
      : kept_(workers),
        layout_{workers + spare_lanes, 0},
        mapping_(reserve(layout_)),
        arguments_(layout_.arena_bytes, kept_.arguments) {
    ::madvise(base(), layout_.bytes(), MADV_DONTDUMP);
  }

  const region_layout& layout() const noexcept { return layout_; }
  const kept_memory& kept() const noexcept { return kept_; }
  argument_memory& arguments() noexcept { return arguments_; }
  request_half& requests(std::size_t lane) const noexcept {
    return *std::launder(reinterpret_cast<request_half*>(base() + layout_.request_at(lane)));
  }
  reply_half& replies(std::size_t lane) const noexcept {
    return *std::launder(reinterpret_cast<reply_half*>(base() + layout_.reply_at(lane)));
  }

  /// Unmaps it all.
  void release() noexcept {
    mapping_ = boost::interprocess::mapped_region();
    arguments_.release();
  }

  /// In the parent, once the zygotes have been forked: processes that the application forks get no copy, and a run past
  /// the end of a half ends in a signal, not in the neighbour. In one piece until then, the region costs a fork little.
  void settle_in() noexcept {
    ::madvise(base(), layout_.bytes(), MADV_DONTFORK);
    arguments_.settle_in();
    for (std::size_t lane = 0; lane != layout_.lanes; ++lane) {
      guard(layout_.request_at(lane) - lane_page);
      guard(layout_.reply_at(lane) - lane_page);
    }
    guard(layout_.bytes() - lane_page);
  }

  /// In a worker: its own lane only, the request half and the arguments read-only, and none of it in processes that a task
  /// forks.
  bool enter(std::size_t lane) noexcept {
    std::byte* const requests = base() + layout_.request_at(lane);
    std::byte* const replies = base() + layout_.reply_at(lane);
    return ::madvise(base(), layout_.bytes(), MADV_DONTFORK) == 0 && bar(base(), requests) &&
           bar(requests + layout_.request_bytes(), replies) &&
           bar(replies + layout_.reply_bytes(), base() + layout_.bytes()) &&
           ::mprotect(requests, layout_.request_bytes(), PROT_READ) == 0 && arguments_.enter();
  }

  /// Makes a lane ready for a worker; only while it has none. What its reply half held is given back to the system and
  /// reads as zero, and what is written without asking for memory has some, which a later store could only miss with a
  /// signal (madvise(2), MADV_POPULATE_WRITE). Throws out_of_shared_memory.
  void prepare(std::size_t lane) {
    if (::madvise(&replies(lane), layout_.reply_bytes(), MADV_REMOVE) != 0) {
      std::memset(static_cast<void*>(&replies(lane)), 0, sizeof(reply_half) - ring_bytes);
    }
    if (!populate(&requests(lane), region_layout::request_start) ||
        !populate(&replies(lane), region_layout::reply_start)) {
      throw make_error<out_of_shared_memory>("no memory for the lane of a worker: " +
                                             std::string(std::strerror(errno)));
    }
  }

 private:
  /// As much address space as the limits of this process allow (RLIMIT_AS, vm.overcommit_memory).
  static boost::interprocess::mapped_region reserve(region_layout& layout) {
    constexpr std::size_t mib = std::size_t{1} << 20;
    constexpr std::size_t largest_region = std::size_t{1} << 44;
    for (const std::size_t arena : {65536 * mib, 4096 * mib, 256 * mib, 8 * mib}) {
      layout.arena_bytes = arena;
      if (layout.lanes > largest_region / layout.lane_bytes()) continue;
      if (auto mapped = map_shared(layout.bytes())) return std::move(*mapped);
    }
    throw make_error<worker_start_error>("no address space for " + std::to_string(layout.lanes) + " workers (" +
                                         std::to_string(layout.bytes()) + " bytes)");
  }

  std::byte* base() const noexcept { return static_cast<std::byte*>(mapping_.get_address()); }
  void guard(std::size_t offset) noexcept { ::mprotect(base() + offset, lane_page, PROT_NONE); }

  /// Replaces the memory by addresses that cannot be touched. They stay taken: what this process maps later must not come
  /// to lie where a stray write into a neighbour's lane would find it.
  static bool bar(std::byte* begin, std::byte* end) noexcept {
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    return begin == end || ::mmap(begin, static_cast<std::size_t>(end - begin), PROT_NONE, flags, -1, 0) != MAP_FAILED;
  }

  const kept_memory kept_;
  region_layout layout_;
  boost::interprocess::mapped_region mapping_;
  argument_memory arguments_;
};

}  // namespace procpool::detail
