// SPDX-License-Identifier: BSL-1.0
// The least that it costs to hand a large array to another process: copied into shared memory once, and looked at there
// or copied from there into a vector.
#pragma once

#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "common/cpus.hpp"
#include "common/memory.hpp"
#include "common/report.hpp"
#include "floors/ping_pong.hpp"

namespace bench {

/// Makes this process reuse what it frees, so that large vectors come without page faults.
inline void keep_heap() {
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);
  ::mallopt(M_TOP_PAD, 64 << 20);
}

enum class receiver { looks, builds_vector, builds_vector_in_kept_heap };

/// Median nanoseconds to hand over `bytes` from touched memory through a touched shared area.
inline double handing_over_ns(std::size_t bytes, receiver how, int times) {
  struct words {
    alignas(128) futex_word there{0};
    alignas(128) futex_word back{0};
  };
  const shared<words> line;
  mapping between(bytes, mapping::kind::shared);
  between.touch();
  const std::vector<double> source(bytes / sizeof(double), 1.0);
  const std::vector<int> cpus = usable_cpus();
  const auto total = static_cast<std::uint32_t>(times + 1);
  const pid_t child = fork_child([&] {
    pin(cpus.back());
    if (how == receiver::builds_vector_in_kept_heap) keep_heap();
    for (std::uint32_t i = 1; i <= total; ++i) {
      spinning::wait(line->there, i);
      if (how == receiver::looks) {
        keep(between.data()[bytes - 1]);
      } else {
        const auto* first = reinterpret_cast<const double*>(between.data());
        const std::vector<double> mine(first, first + bytes / sizeof(double));  // not zeroed first
        keep(mine.back());
      }
      spinning::post(line->back, i);
    }
  });
  const unpin_at_end restore;
  pin(cpus.front());
  samples ns;
  for (std::uint32_t i = 1; i <= total; ++i) {
    const stopwatch since;
    std::memcpy(between.data(), source.data(), bytes);
    spinning::post(line->there, i);
    spinning::wait(line->back, i);
    if (i != 1) ns.add(since.ns());
  }
  reap(child);
  return ns.median();
}

inline void emit_copy_floor(std::size_t mebibytes, receiver how, int times) {
  const char* impl = how == receiver::looks           ? "floor:memcpy-xproc-1copy"
                     : how == receiver::builds_vector ? "floor:memcpy-xproc-2copy-fresh-vector"
                                                      : "floor:memcpy-xproc-2copy-kept-heap-vector";
  const std::size_t bytes = mebibytes * mebibyte;
  emit(impl, std::to_string(mebibytes) + "MiB", "bw", static_cast<double>(bytes) / handing_over_ns(bytes, how, times),
       "GB/s");
}

}  // namespace bench
