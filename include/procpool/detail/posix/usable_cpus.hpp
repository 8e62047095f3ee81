// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <procpool/detail/posix/cgroups.hpp>

namespace procpool::detail {

/// How many CPUs the calling thread may run on (`sched_getaffinity(2)`).
inline int affinity_cpus() {
  // The kernel refuses a mask shorter than its own with EINVAL; its length is not told.
  for (std::size_t cpus = 1024; cpus <= (std::size_t{1} << 20); cpus *= 2) {
    std::vector<cpu_set_t> mask(CPU_ALLOC_SIZE(cpus) / sizeof(cpu_set_t));
    const std::size_t size = mask.size() * sizeof(cpu_set_t);
    if (::sched_getaffinity(0, size, mask.data()) == 0) return std::max(1, CPU_COUNT_S(size, mask.data()));
    if (errno != EINVAL) break;
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// The CPUs' worth of time that one control group grants, read from its files at `directory`; none if unlimited.
inline std::optional<double> cgroup_directory_quota(const std::string& directory) {
  double quota = 0;
  double period = 0;
  if (std::ifstream v2(directory + "/cpu.max"); v2) {
    if (!(v2 >> quota >> period)) return std::nullopt;  // "max 100000"
  } else {
    std::ifstream v1_quota(directory + "/cpu.cfs_quota_us");
    std::ifstream v1_period(directory + "/cpu.cfs_period_us");
    if (!(v1_quota >> quota) || !(v1_period >> period)) return std::nullopt;
  }
  if (quota <= 0 || period <= 0) return std::nullopt;  // -1: no limit
  return quota / period;
}

/// The smallest CPU quota among the control groups of this process and their ancestors.
inline std::optional<double> cgroup_cpu_quota(const control_groups& where = {}) {
  return least_in_cgroups("cpu", cgroup_directory_quota, where);
}

/// The CPUs this process may use: those of its affinity mask, bounded by its CPU quota rounded up. At least 1.
inline int usable_cpus() {
  const int cpus = affinity_cpus();
  const std::optional<double> quota = cgroup_cpu_quota();
  if (!quota || *quota >= cpus) return cpus;
  return std::max(1, static_cast<int>(std::ceil(*quota)));
}

}  // namespace procpool::detail
