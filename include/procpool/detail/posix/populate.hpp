// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>

namespace procpool::detail {

/// Has the kernel give memory to these pages now (madvise(2), MADV_POPULATE_WRITE): a store to one that finds none would
/// be a SIGBUS. False, with errno, if there is none. Where the kernel is too old for it (Linux 5.14), or a container's
/// profile forbids it, nothing is done.
inline bool populate(void* pages, std::size_t bytes) noexcept {
  if (::madvise(pages, bytes, MADV_POPULATE_WRITE) == 0) return true;
  return errno == EINVAL || errno == ENOSYS || errno == EPERM;
}

}  // namespace procpool::detail
