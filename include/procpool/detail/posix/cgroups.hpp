// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

namespace procpool::detail {

/// Where this process's control groups are told (`cgroups(7)`).
struct control_groups {
  std::string membership = "/proc/self/cgroup";  ///< the file that names them
  std::string root = "/sys/fs/cgroup";           ///< where their file systems are mounted
};

/// The least of what `limit_of(directory)`, an optional number, says of the control groups of this process that have that
/// controller, v1 and v2, and of their ancestors; none if none says anything.
template <class LimitOf>
auto least_in_cgroups(const std::string& controller, LimitOf limit_of, const control_groups& where) {
  decltype(limit_of(where.root)) least;
  std::ifstream groups(where.membership);
  for (std::string line; std::getline(groups, line);) {  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
    std::istringstream fields(line);
    std::string number, controllers, path;
    if (!std::getline(fields, number, ':') || !std::getline(fields, controllers, ':')) continue;
    std::getline(fields, path);
    std::string mount = where.root;
    if (!controllers.empty()) {
      if (("," + controllers + ",").find("," + controller + ",") == std::string::npos) continue;
      mount += "/" + controllers;
    }
    // A container may see a path of the host that is not mounted here: the ancestors that are still count.
    while (true) {
      if (path == "/") path.clear();
      if (const auto limit = limit_of(mount + path)) least = std::min(least.value_or(*limit), *limit);
      if (path.empty()) break;
      path.erase(std::min(path.rfind('/'), path.size()));
    }
  }
  return least;
}

}  // namespace procpool::detail
