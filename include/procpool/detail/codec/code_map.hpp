// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <link.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

namespace procpool::detail {

/// Where the program and its libraries have code. A number that stands for code is looked up before it is called: a
/// library that the parent loaded after the fork is not in the worker.
class code_map {
 public:
  /// The executable segments of this process now (`dl_iterate_phdr(3)`). It takes a lock of the loader, so it is made
  /// before the fork.
  static code_map of_now() {
    code_map map;
    ::dl_iterate_phdr(&add_object, &map);
    std::sort(map.ranges_.begin(), map.ranges_.end(), [](const range& a, const range& b) { return a.begin < b.begin; });
    return map;
  }

  /// From now on contains() answers by `map`: called in a forked process while it has one thread.
  static void install(code_map map) noexcept { installed() = std::move(map); }

  /// Whether there is code at the address that tasks may name; true for all in a process that runs no one's tasks.
  static bool contains(const void* address) noexcept {
    const std::vector<range>& ranges = installed().ranges_;
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    const auto behind = std::upper_bound(ranges.begin(), ranges.end(), at,
                                         [](std::uintptr_t wanted, const range& r) { return wanted < r.begin; });
    return ranges.empty() || (behind != ranges.begin() && at < std::prev(behind)->end);
  }

 private:
  struct range {
    std::uintptr_t begin;
    std::uintptr_t end;
  };

  static code_map& installed() noexcept {
    static constinit code_map map;
    return map;
  }

  static int add_object(dl_phdr_info* info, std::size_t, void* target) {
    auto& ranges = static_cast<code_map*>(target)->ranges_;
    for (std::size_t i = 0; i < info->dlpi_phnum; ++i) {
      const auto& segment = info->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
      const auto begin = static_cast<std::uintptr_t>(info->dlpi_addr) + static_cast<std::uintptr_t>(segment.p_vaddr);
      ranges.push_back({begin, begin + static_cast<std::uintptr_t>(segment.p_memsz)});
    }
    return 0;
  }

  std::vector<range> ranges_;
};

}  // namespace procpool::detail
