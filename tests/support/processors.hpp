// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

namespace support {

/// Of the processors that this thread may run on, how many there are on which sched_getcpu(3), which asks the C library,
/// says another. Less than 0: they cannot be told.
inline int processors_told_wrongly() {
  cpu_set_t before;
  CPU_ZERO(&before);
  if (::sched_getaffinity(0, sizeof(before), &before) != 0) return -1;
  int wrong = 0;
  for (int cpu = 0; cpu != CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(static_cast<unsigned>(cpu), &before)) continue;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(static_cast<unsigned>(cpu), &only);
    if (::sched_setaffinity(0, sizeof(only), &only) == 0 && ::sched_getcpu() != cpu) ++wrong;
  }
  ::sched_setaffinity(0, sizeof(before), &before);
  return wrong;
}

}  // namespace support
