// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <limits>

#include <procpool/detail/posix/system_call.hpp>

namespace procpool::detail {

/// `a + b`, or the largest number if that is more.
inline std::size_t saturating_sum(std::size_t a, std::size_t b) noexcept {
  return a > std::numeric_limits<std::size_t>::max() - b ? std::numeric_limits<std::size_t>::max() : a + b;
}

/// Lowers both limits of a resource (setrlimit(2)), where they are higher; `leeway` lies between the soft one, which is
/// `most`, and the hard one.
template <class Resource>
void lower_limit(Resource resource, std::size_t most, const char* name, std::size_t leeway = 0) {
  struct rlimit limit{};
  checked(::getrlimit(resource, &limit), name);
  limit.rlim_max = std::min<rlim_t>(limit.rlim_max, saturating_sum(most, leeway));
  limit.rlim_cur = std::min<rlim_t>(std::min<rlim_t>(limit.rlim_cur, most), limit.rlim_max);
  checked(::setrlimit(resource, &limit), name);
}

/// The address space that this process has mapped (proc(5), statm). Throws std::system_error.
inline std::size_t mapped_bytes() {
  std::size_t pages = 0;
  if (!(std::ifstream("/proc/self/statm") >> pages)) throw_errno("open /proc/self/statm", ENOENT);
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

/// Gives up all capabilities, for good where no_new_privs is set (capabilities(7)). Throws std::system_error.
inline void drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3]{};
  checked(::syscall(SYS_capset, &header, none), "capset");
}

/// Whether this process has one thread (proc(5), task: a directory for each). True where that cannot be told.
inline bool single_threaded() noexcept {
  struct stat status{};
  constexpr nlink_t of_an_empty_directory = 2;
  return ::stat("/proc/self/task", &status) != 0 || status.st_nlink <= of_an_empty_directory + 1;
}

}  // namespace procpool::detail
