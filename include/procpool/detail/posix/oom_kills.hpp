// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include <procpool/detail/posix/descriptor_registry.hpp>
#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// The count of `oom_kill` in the file; none where it has none.
inline std::optional<std::uint64_t> oom_kills(int file) noexcept {
  char text[1024] = "\n";
  const auto size = retry_on_eintr([&] { return ::pread(file, text + 1, sizeof(text) - 2, 0); });
  if (size <= 0) return std::nullopt;
  text[1 + size] = '\0';
  unsigned long long count = 0;
  const char* const line = std::strstr(text, "\noom_kill ");
  if (line == nullptr || std::sscanf(line, "\noom_kill %llu", &count) != 1) return std::nullopt;
  return count;
}

/// The file that counts the processes of this one's control group that the kernel has ended for want of memory (cgroups(7):
/// `oom_kill` in memory.events, v2, or memory.oom_control, v1); none where there is none. `membership` is the file that
/// names the groups, `root` where their file systems are mounted.
inline unique_fd oom_kills_file(const std::string& membership = "/proc/self/cgroup",
                                const std::string& root = "/sys/fs/cgroup") {
  std::ifstream groups(membership);
  for (std::string line; std::getline(groups, line);) {  // "0::/path" (v2) or "4:memory:/path" (v1)
    std::istringstream fields(line);
    std::string number, controllers, path;
    if (!std::getline(fields, number, ':') || !std::getline(fields, controllers, ':')) continue;
    std::getline(fields, path);
    if (!controllers.empty() && ("," + controllers + ",").find(",memory,") == std::string::npos) continue;
    const std::string directory = root + (controllers.empty() ? "" : "/" + controllers) + path;
    const std::string counts = directory + (controllers.empty() ? "/memory.events" : "/memory.oom_control");
    unique_fd file(::open(counts.c_str(), O_RDONLY | O_CLOEXEC));
    if (oom_kills(file.get())) return file;
  }
  return {};
}

/// Tells whether the kernel has ended a process of the control group since it was last asked, or since start(); nothing
/// where that is not told. The count has risen before the process dies.
class oom_watch {
 public:
  void start() noexcept {
    try {
      unique_fd file = oom_kills_file();
      if (file) file_ = registered_fd(std::move(file));
    } catch (...) {  // no memory to look for the file with
    }
    before_ = oom_kills(file_.get());
  }
  void stop() noexcept { file_.reset(); }

  std::optional<bool> has_killed() noexcept {
    const std::optional<std::uint64_t> now = oom_kills(file_.get());
    const std::optional<std::uint64_t> before = std::exchange(before_, now);
    if (now && before) return *now > *before;
    return std::nullopt;
  }

 private:
  registered_fd file_;
  std::optional<std::uint64_t> before_;
};

}  // namespace procpool::detail
