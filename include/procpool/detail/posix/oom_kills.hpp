// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

namespace procpool::detail {

/// How many processes of this one's control group the kernel has ended for want of memory (cgroups(7): `oom_kill` in
/// memory.events, v2, or memory.oom_control, v1); none where that is not told. `membership` is the file that names the
/// groups, `root` where their file systems are mounted.
inline std::optional<std::uint64_t> oom_kills(const std::string& membership = "/proc/self/cgroup",
                                              const std::string& root = "/sys/fs/cgroup") {
  std::ifstream groups(membership);
  for (std::string line; std::getline(groups, line);) {  // "0::/path" (v2) or "4:memory:/path" (v1)
    std::istringstream fields(line);
    std::string number, controllers, path;
    if (!std::getline(fields, number, ':') || !std::getline(fields, controllers, ':')) continue;
    std::getline(fields, path);
    if (!controllers.empty() && ("," + controllers + ",").find(",memory,") == std::string::npos) continue;
    const std::string directory = root + (controllers.empty() ? "" : "/" + controllers) + path;
    std::ifstream counts(directory + (controllers.empty() ? "/memory.events" : "/memory.oom_control"));
    std::string name;
    for (std::uint64_t count = 0; counts >> name >> count;) {
      if (name == "oom_kill") return count;
    }
  }
  return std::nullopt;
}

/// Tells whether the kernel has ended a process of the control group since it was last asked; nothing where that is not
/// told. The count has risen before the process dies.
class oom_watch {
 public:
  std::optional<bool> has_killed() noexcept {
    try {
      const std::optional<std::uint64_t> now = oom_kills();
      const std::optional<std::uint64_t> before = std::exchange(before_, now);
      if (now && before) return *now > *before;
    } catch (...) {  // no memory to read the files with
    }
    return std::nullopt;
  }

 private:
  std::optional<std::uint64_t> before_ = oom_kills();
};

}  // namespace procpool::detail
