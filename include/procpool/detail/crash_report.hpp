// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <memory>
#include <new>
#include <vector>

namespace procpool::detail {

/// What a worker has written down when a fatal signal met it. Addresses mean in the parent what they meant in the worker,
/// which was forked from it.
struct crash_report {
  int signal = 0;                 ///< 0: there is no report
  void* fault_address = nullptr;  ///< what it must not have touched, or where it must not have been; null if none
  std::vector<void*> frames{};    ///< where it was, then where that was called from, and so on
};

/// What there is at `port`, of a worker that is gone. Null if there is no memory for it: less is told then.
template <class Port>
std::shared_ptr<const crash_report> report_of(const Port& port) noexcept try {
  return std::make_shared<const crash_report>(port.report());
} catch (const std::bad_alloc&) {
  return nullptr;
}

}  // namespace procpool::detail
