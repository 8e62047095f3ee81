// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <link.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace procpool::detail {

/// The code that this process had when it was forked. A number that stands for code is looked up here before it is
/// called: a library that the parent loaded later is not in this process.
class code_map {
 public:
  /// Takes down the executable segments of the program and its libraries (`dl_iterate_phdr(3)`). Called once, in the
  /// forked process, while it has one thread.
  static void capture() noexcept {
    state& map = instance();
    map.count = 0;
    map.captured = ::dl_iterate_phdr(&add_object, &map) == 0;
    std::sort(map.ranges.begin(), map.ranges.begin() + static_cast<std::ptrdiff_t>(map.count),
              [](const range& a, const range& b) { return a.begin < b.begin; });
  }

  /// Whether there was code at the address when capture() was called; true for all if it never was.
  static bool contains(const void* address) noexcept {
    const state& map = instance();
    if (!map.captured) return true;
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    const auto end = map.ranges.begin() + static_cast<std::ptrdiff_t>(map.count);
    const auto behind = std::upper_bound(map.ranges.begin(), end, at,
                                         [](std::uintptr_t wanted, const range& r) { return wanted < r.begin; });
    return behind != map.ranges.begin() && at < std::prev(behind)->end;
  }

 private:
  struct range {
    std::uintptr_t begin;
    std::uintptr_t end;
  };
  struct state {
    std::array<range, 4096> ranges{};  // static: nothing is allocated right after a fork
    std::size_t count = 0;
    bool captured = false;
  };

  static state& instance() noexcept {
    static constinit state map;
    return map;
  }

  // Returns non-zero when the table is full: then every address passes, as before capture().
  static int add_object(dl_phdr_info* info, std::size_t, void* target) noexcept {
    state& map = *static_cast<state*>(target);
    for (std::size_t i = 0; i < info->dlpi_phnum; ++i) {
      const auto& segment = info->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
      if (map.count == map.ranges.size()) return 1;
      const auto begin = static_cast<std::uintptr_t>(info->dlpi_addr) + static_cast<std::uintptr_t>(segment.p_vaddr);
      map.ranges[map.count++] = {begin, begin + static_cast<std::uintptr_t>(segment.p_memsz)};
    }
    return 0;
  }
};

}  // namespace procpool::detail
