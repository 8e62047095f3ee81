// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <gnu/libc-version.h>
#include <valgrind/callgrind.h>

#include <cstddef>
#include <cstdio>
#include <string>

#include <boost/version.hpp>

namespace instruction_counts {

/// Counts depend on these; check.py compares them with those of the table.
inline void print_conditions() {
  const char* const processor =
      __builtin_cpu_supports("avx2") ? "x86-64 with AVX2" : "x86-64";  // to choose a memcpy by
  std::printf("conditions: %s, g++ %d, glibc %s, Boost %d.%d\n", processor, __GNUC__, ::gnu_get_libc_version(),
              BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000);
}

/// From now on this thread's instructions are counted, or no longer are. As a program starts they are not.
inline void toggle(bool = true) { CALLGRIND_TOGGLE_COLLECT; }

/// Runs `work`, which is made of so many elements, and has what is counted meanwhile written under this name.
template <class Work>
void count(const std::string& name, std::size_t elements, Work& work) {
  work();
  CALLGRIND_DUMP_STATS_AT(name.c_str());
  std::printf("%zu %s\n", elements, name.c_str());
}

}  // namespace instruction_counts
