// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace seeded {

enum class wasted { nothing, encoding, posting, running, reading, copying };
inline constexpr const char* names[] = {"nothing", "encoding", "posting", "running", "reading", "copying"};

/// Where this process wastes time.
inline wasted waste = wasted::nothing;

inline bool choose(const char* name) noexcept {
  for (std::size_t i = 0; i != std::size(names); ++i) {
    if (std::strcmp(name, names[i]) != 0) continue;
    waste = static_cast<wasted>(i);
    return true;
  }
  return false;
}

/// One allocation of so many bytes, which are written. Volatile: so that the compiler does not see through it.
[[gnu::noinline]] inline void allocate(std::size_t size) {
  char* volatile memory = static_cast<char*>(std::malloc(size));
  std::memset(memory, 1, size);
  static_cast<void>(*static_cast<volatile char*>(memory));
  std::free(memory);
}

}  // namespace seeded

#define WASTE(where, size) (::seeded::waste == ::seeded::wasted::where ? ::seeded::allocate(size) : void())
