// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdio>
#include <iostream>

namespace procpool::detail {

/// Writes out what lies in the buffers of stdout and stderr, so that a fork does not double it and a death not lose it.
inline void flush_standard_streams() noexcept {
  try {
    std::cout.flush();
    std::cerr.flush();
    std::clog.flush();
  } catch (...) {  // the application asked its streams to throw; there is no one to tell
  }
  std::fflush(stdout);
  std::fflush(stderr);
}

}  // namespace procpool::detail
