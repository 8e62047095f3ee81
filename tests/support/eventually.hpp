// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <thread>

namespace support {

/// Looks at `condition` until it holds: true. False if it does not within a time that only something broken takes.
template <class Condition>
bool eventually(Condition condition, std::chrono::milliseconds longest = std::chrono::seconds(20)) {
  const auto until = std::chrono::steady_clock::now() + longest;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace support
