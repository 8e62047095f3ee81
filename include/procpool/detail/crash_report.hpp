// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <vector>

namespace procpool::detail {

/// What a worker has written down when a fatal signal met it. Addresses mean in the parent what they meant in the worker,
/// which was forked from it.
struct crash_report {
  int signal = 0;                 ///< 0: there is no report
  void* fault_address = nullptr;  ///< what it must not have touched, or where it must not have been; null if none
  std::vector<void*> frames{};    ///< where it was, then where that was called from, and so on
};

}  // namespace procpool::detail
