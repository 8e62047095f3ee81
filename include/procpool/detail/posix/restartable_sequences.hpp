// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if __has_include(<sys/rseq.h>)  // glibc 2.35
#include <sys/rseq.h>
#endif

namespace procpool::detail {

/// In a process that was forked by one that shared its parent's memory: has the kernel keep this thread's area for
/// restartable sequences again (rseq(2)), as children that are forked from here on inherit. A process that shares memory
/// starts without (clone(2), CLONE_VM), and so do its own children, whose C library does not know: sched_getcpu(), and
/// allocators with a heap for each processor, would believe for ever what was true at the fork.
inline void renew_restartable_sequences() noexcept {
#if defined(RSEQ_SIG)
  constexpr std::size_t original_size = 32;  // which every kernel accepts
  if (__rseq_size == 0) return;              // the C library does not use them
  auto* const area = static_cast<std::byte*>(__builtin_thread_pointer()) + __rseq_offset;
  constexpr std::uint64_t no_sequence = 0;
  std::memcpy(area + offsetof(struct rseq, rseq_cs), &no_sequence, sizeof(no_sequence));
  // Where this is refused the C library starts no threads either, and there is no pool.
  ::syscall(SYS_rseq, area, original_size, 0, RSEQ_SIG);
#endif
}

}  // namespace procpool::detail
