// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

namespace sweeps {

// What a run holds at its end is read while system calls still fail, and must not itself be what they fail in: openat2,
// readv and pselect6 stand in for openat, read and poll, which are swept.

inline int open_unswept(const std::string& path) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC;
  return static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof(how)));
}

inline std::string read_unswept(const std::string& path) {
  std::string all;
  const int file = open_unswept(path);
  if (file < 0) return all;
  std::array<char, 4096> part{};
  for (;;) {
    const iovec into{part.data(), part.size()};
    const ssize_t got = ::readv(file, &into, 1);
    if (got <= 0) break;
    all.append(part.data(), static_cast<std::size_t>(got));
  }
  ::close(file);
  return all;
}

inline void say(std::string_view text) {
  const iovec from{const_cast<char*>(text.data()), text.size()};
  [[maybe_unused]] const auto written = ::writev(STDOUT_FILENO, &from, 1);
}

inline std::set<std::string> list_unswept(const std::string& directory) {
  std::set<std::string> names;
  const int open = open_unswept(directory);
  alignas(std::uint64_t) std::array<char, 4096> part{};
  for (;;) {
    const long got = ::syscall(SYS_getdents64, open, part.data(), part.size());
    if (got <= 0) break;
    for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
      // An entry: inode and offset of 8 bytes each, its length in 2, a type in 1, the name (getdents(2)).
      std::uint16_t length;
      std::memcpy(&length, part.data() + at + 16, sizeof(length));
      const std::string name = part.data() + at + 19;
      if (name[0] != '.' && name != std::to_string(open)) names.insert(name);
      at += length;
    }
  }
  ::close(open);
  return names;
}

/// Descriptors, threads, children and shared mappings of this process.
inline std::set<std::string> held_now() {
  std::set<std::string> held;
  for (const std::string& name : list_unswept("/proc/self/fd")) {
    std::array<char, 256> target{};
    const ssize_t size = ::readlink(("/proc/self/fd/" + name).c_str(), target.data(), target.size());
    if (size >= 0) held.insert("descriptor " + name + " " + std::string(target.data(), static_cast<std::size_t>(size)));
  }
  for (const std::string& name : list_unswept("/proc/self/task")) {
    held.insert("thread " + name);
    std::istringstream children(read_unswept("/proc/self/task/" + name + "/children"));
    for (std::string child; children >> child;) held.insert("child " + child);
  }
  std::istringstream maps(read_unswept("/proc/self/maps"));
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    std::string range, permissions;
    fields >> range >> permissions;
    if (permissions.size() == 4 && permissions[3] == 's') held.insert("shared mapping " + line);
  }
  return held;
}

/// Every process that is forked in its life holds the writing end of a pipe: the reading end tells when all are gone.
class leak_check {
 public:
  leak_check() {
    if (::pipe(ends_) != 0) std::abort();
    before_ = held_now();
  }
  leak_check(const leak_check&) = delete;
  leak_check& operator=(const leak_check&) = delete;
  ~leak_check() { ::close(ends_[0]); }

  /// What is left that was not there before; empty if there is nothing. What is gone takes a moment to be gone for /proc.
  std::string left_behind(bool mappings_too = true) {
    std::string left;
    for (int looks = 0; looks != 2000; ++looks) {
      left.clear();
      for (const std::string& each : held_now()) {
        if (!before_.contains(each) && (mappings_too || !each.starts_with("shared"))) left += each + "; ";
      }
      if (left.empty()) break;
      timespec moment{0, 1'000'000};
      ::pselect(0, nullptr, nullptr, nullptr, &moment, nullptr);
    }
    ::close(ends_[1]);
    fd_set reading;
    FD_ZERO(&reading);
    FD_SET(ends_[0], &reading);
    timespec longest{5, 0};
    if (::pselect(ends_[0] + 1, &reading, nullptr, nullptr, &longest, nullptr) != 1) left += "a process; ";
    return left;
  }

 private:
  int ends_[2]{};
  std::set<std::string> before_;
};

}  // namespace sweeps
