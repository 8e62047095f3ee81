// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

namespace support {

/// A program of its own, as far as this process can be one: a forked child that runs `body`. For what changes the
/// state of the whole process (signal handlers, limits, exit) or must not survive.
class child_process {
 public:
  /// `body` returns a text for the parent; what it throws becomes one. The child leaves by _exit().
  template <class Body>
  explicit child_process(Body body) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
    std::fflush(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      ::close(ends[0]);
      std::string said;
      try {
        said = body();
      } catch (const std::exception& failure) {
        said = std::string("threw: ") + failure.what();
      }
      const char* at = said.data();
      for (std::size_t left = said.size(); left != 0;) {
        const ssize_t written = ::write(ends[1], at, left);
        if (written <= 0) break;
        at += written;
        left -= static_cast<std::size_t>(written);
      }
      ::_exit(EXIT_SUCCESS);
    }
    ::close(ends[1]);
    reading_ = ends[0];
  }
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;
  ~child_process() {
    if (!ended_) {
      ::kill(pid_, SIGKILL);
      wait();
    }
    ::close(reading_);
  }

  pid_t pid() const { return pid_; }

  /// What `body` returned, once the child has ended; says so if it did not end well or not in time.
  std::string said() {
    std::string all;
    std::array<char, 4096> part{};
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(45);
    for (;;) {
      pollfd waiting{reading_, POLLIN, 0};
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
      if (left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) != 1) {
        ::kill(pid_, SIGKILL);
        wait();
        return all + " (did not end in time)";
      }
      const ssize_t got = ::read(reading_, part.data(), part.size());
      if (got <= 0) break;
      all.append(part.data(), static_cast<std::size_t>(got));
    }
    const int status = wait();
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) all += " (ended with status " + std::to_string(status) + ")";
    return all;
  }

  /// Reaps the child; returns its status as waitpid(2) has it.
  int wait() {
    if (!ended_) {
      while (::waitpid(pid_, &status_, 0) == -1 && errno == EINTR) {
      }
      ended_ = true;
    }
    return status_;
  }

 private:
  pid_t pid_ = -1;
  int reading_ = -1;
  bool ended_ = false;
  int status_ = 0;
};

/// What `body` returned in a child process; empty means that all was well there.
template <class Body>
std::string in_child(Body body) {
  child_process child(std::move(body));
  return child.said();
}

}  // namespace support
