// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#include <procpool/detail/posix/cgroups.hpp>

namespace procpool::detail {

/// The bytes of memory that one control group grants, read from its files at `directory`; none if unlimited.
inline std::optional<std::uint64_t> cgroup_directory_memory(const std::string& directory) {
  std::uint64_t bytes = 0;
  if (std::ifstream v2(directory + "/memory.max"); v2) {
    if (!(v2 >> bytes)) return std::nullopt;  // "max"
  } else {
    std::ifstream v1(directory + "/memory.limit_in_bytes");  // without a limit, more than there can be
    if (!(v1 >> bytes)) return std::nullopt;
  }
  return bytes;
}

/// The bytes of memory that this process may use: the machine's, bounded by what its control groups and their ancestors
/// grant.
inline std::uint64_t usable_memory(const control_groups& where = {}) {
  const auto pages = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
  const std::uint64_t all = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return std::min(all, least_in_cgroups("memory", cgroup_directory_memory, where).value_or(all));
}

}  // namespace procpool::detail
