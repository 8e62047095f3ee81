// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "eventually.hpp"
#include "processes.hpp"

namespace support {

/// What a process holds of the system: descriptors, threads, children (zombies too), mappings that are shared.
struct resources {
  std::set<std::string> held;

  static resources now() {
    resources all;
    for (const std::string& name : names_in("/proc/self/fd")) {
      std::array<char, 4096> target{};
      const ssize_t size = ::readlink(("/proc/self/fd/" + name).c_str(), target.data(), target.size());
      if (size < 0) continue;  // the one that the directory was read with
      all.held.insert("descriptor " + name + ": " + std::string(target.data(), static_cast<std::size_t>(size)));
    }
    for (const std::string& name : names_in("/proc/self/task")) all.held.insert("thread " + name);
    for (const pid_t child : children_of(::getpid())) all.held.insert("child " + std::to_string(child));
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      std::istringstream fields(line);
      std::string range, permissions;
      fields >> range >> permissions;
      if (permissions.size() == 4 && permissions[3] == 's') all.held.insert("shared mapping " + line);
    }
    return all;
  }

  /// What there is as soon as it is what there was `before`, or, if it does not become so, in the end. What is gone takes
  /// a moment to be gone for /proc.
  static resources once_as(const resources& before, std::chrono::milliseconds longest = std::chrono::seconds(20)) {
    resources after;
    eventually(
        [&] {
          after = now();
          return after.held == before.held;
        },
        longest);
    return after;
  }

  /// What the second has and the first has not, a line each.
  static std::string added(const resources& before, const resources& after) {
    std::string lines;
    for (const std::string& each : after.held) {
      if (!before.held.contains(each)) lines += each + "\n";
    }
    return lines;
  }
};

}  // namespace support
