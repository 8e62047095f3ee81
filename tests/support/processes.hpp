// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <dirent.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "eventually.hpp"

namespace support {

/// What /proc/PID/stat tells (proc(5)).
struct process_status {
  pid_t pid = 0;
  std::string name;  ///< of its first thread
  char state = 0;    ///< 'R' running, 'S' asleep, 'T' stopped, 'Z' zombie, …
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
};

inline std::optional<process_status> status_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  const std::size_t open = text.find('(');
  const std::size_t close = text.rfind(')');
  if (open == std::string::npos || close == std::string::npos) return std::nullopt;
  process_status status;
  status.pid = pid;
  status.name = text.substr(open + 1, close - open - 1);
  std::istringstream rest(text.substr(close + 1));
  if (!(rest >> status.state >> status.parent >> status.group >> status.session)) return std::nullopt;
  return status;
}

inline std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  DIR* const open = ::opendir(directory.c_str());
  if (open == nullptr) return names;
  while (const dirent* entry = ::readdir(open)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  ::closedir(open);
  return names;
}

inline std::vector<process_status> all_processes() {
  std::vector<process_status> all;
  for (const std::string& name : names_in("/proc")) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (auto status = status_of(static_cast<pid_t>(std::atol(name.c_str())))) all.push_back(std::move(*status));
  }
  return all;
}

/// Zombies included.
inline std::set<pid_t> children_of(pid_t parent) {
  std::set<pid_t> children;
  for (const process_status& each : all_processes()) {
    if (each.parent == parent) children.insert(each.pid);
  }
  return children;
}

/// Neither gone nor a zombie.
inline bool is_alive(pid_t pid) {
  const auto status = status_of(pid);
  return status && status->state != 'Z' && status->state != 'X';
}

inline bool await_end(pid_t pid) {
  return eventually([&] { return !is_alive(pid); });
}

/// Until the process, or the thread with that number, sleeps in a system call.
inline bool await_sleep(pid_t pid) {
  return eventually([&] {
    const auto status = status_of(pid);
    return status && status->state == 'S';
  });
}

/// Until all threads of the process sleep in system calls, but for the calling one.
inline bool await_threads_asleep(pid_t process) {
  const std::string own = std::to_string(::gettid());
  return eventually([&] {
    for (const std::string& name : names_in("/proc/" + std::to_string(process) + "/task")) {
      const auto status = status_of(static_cast<pid_t>(std::atol(name.c_str())));
      if (name != own && status && status->state != 'S') return false;
    }
    return true;
  });
}

}  // namespace support
