// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>
#include <string>

#include "eventually.hpp"

namespace support {

/// Makes processes that cannot be killed: what the freezer of cgroups(7), version 1, has frozen is in uninterruptible
/// sleep, and a SIGKILL waits until it is thawed, at the latest at the end of this object.
class freezer {
 public:
  freezer() {
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
      const std::size_t own = line.find(":freezer:");
      if (own == std::string::npos) continue;
      const std::string path =
          "/sys/fs/cgroup/freezer" + line.substr(own + 9) + "/procpool_test." + std::to_string(::getpid());
      if (::mkdir(path.c_str(), 0755) == 0) path_ = path;
    }
  }
  freezer(const freezer&) = delete;
  freezer& operator=(const freezer&) = delete;
  ~freezer() {
    if (path_.empty()) return;
    thaw();
    eventually([this] { return ::rmdir(path_.c_str()) == 0; });  // not while a process is in it
  }

  bool is_there() const { return !path_.empty(); }

  /// False if it did not work.
  bool freeze(pid_t pid) const {
    return write("cgroup.procs", std::to_string(pid)) && write("freezer.state", "FROZEN") &&
           eventually([this] { return state() == "FROZEN"; });
  }
  void thaw() const { write("freezer.state", "THAWED"); }

 private:
  bool write(const std::string& file, const std::string& text) const {
    std::ofstream to(path_ + "/" + file);
    return static_cast<bool>((to << text).flush());
  }
  std::string state() const {
    std::ifstream file(path_ + "/freezer.state");
    std::string text;
    file >> text;
    return text;
  }

  std::string path_;
};

}  // namespace support
