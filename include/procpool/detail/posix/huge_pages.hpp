// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace procpool::detail {

/// Memory of so many bytes is mapped for itself by the C library, and goes back to the system when it is freed: what it is
/// advised dies with it.
inline constexpr std::size_t mapped_apart = std::size_t{32} << 20;

/// For memory that is about to be touched for the first time: a huge page costs little more than each of its 512 small
/// ones would (madvise(2), MADV_HUGEPAGE). Where the system grants them to who asks; keeps errno.
inline void prefer_huge_pages(void* begin, std::size_t bytes) noexcept {
  constexpr std::uintptr_t huge = std::uintptr_t{2} << 20;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(begin) + huge - 1) / huge * huge;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(begin) + bytes) / huge * huge;
  if (first >= end) return;
  const int kept = errno;
  ::madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
  errno = kept;
}

}  // namespace procpool::detail
