// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include <catch2/catch.hpp>

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

  /// What the second has and the first has not, a line each.
  static std::string added(const resources& before, const resources& after) {
    std::string lines;
    for (const std::string& each : after.held) {
      if (!before.held.contains(each)) lines += each + "\n";
    }
    return lines;
  }
};

/// Checks at its end that nothing is left of what came into being in its life: no descriptor, no thread, no child, no
/// shared mapping, and no process at all, wherever it was reparented to. Gone resources take a moment to be gone
/// for /proc, so it waits for that.
class resources_unchanged {
 public:
  resources_unchanged() {
    // Every process that is forked from now on inherits the writing end, also past an exec: when the reading end sees
    // the end of the file, none is left.
    if (::pipe(ends_) != 0) std::abort();
    ::fcntl(ends_[0], F_SETFD, FD_CLOEXEC);
    before_ = resources::now();
  }
  resources_unchanged(const resources_unchanged&) = delete;
  resources_unchanged& operator=(const resources_unchanged&) = delete;
  ~resources_unchanged() {
    check();
    ::close(ends_[0]);
  }

  /// Also before its end, once.
  void check() {
    if (checked_) return;
    checked_ = true;
    resources after;
    eventually([&] {
      after = resources::now();
      return after.held == before_.held;
    });
    CHECK(resources::added(before_, after) == "");
    CHECK(resources::added(after, before_) == "");
    ::close(ends_[1]);
    pollfd last{ends_[0], POLLIN, 0};
    CHECK(::poll(&last, 1, 20'000) == 1);
    CHECK((last.revents & (POLLHUP | POLLIN)) == POLLHUP);
  }

 private:
  int ends_[2]{};
  resources before_;
  bool checked_ = false;
};

}  // namespace support
