// SPDX-License-Identifier: BSL-1.0
// The least that processes cost: to start and end some, to do work in two of them, to replace one that was killed, and
// what one takes that only sleeps.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include "common/memory.hpp"
#include "common/report.hpp"
#include "common/work.hpp"
#include "floors/child.hpp"

namespace bench {

/// Milliseconds to fork `count` children, hear of all of them, tell them to stop, and reap them.
inline double start_and_stop_ms(int count) {
  struct words {
    futex_word started{0};
    alignas(128) futex_word stop{0};
  };
  const shared<words> all;
  const stopwatch since;
  std::vector<pid_t> children;
  for (int i = 0; i != count; ++i) {
    children.push_back(fork_child([&] {
      if (all->started.fetch_add(1) + 1 == static_cast<std::uint32_t>(count)) futex_wake(all->started);
      while (all->stop.load() == 0) futex_wait(all->stop, 0);
    }));
  }
  for (std::uint32_t seen; (seen = all->started.load()) != static_cast<std::uint32_t>(count);) {
    futex_wait(all->started, seen);
  }
  all->stop.store(1);
  futex_wake(all->stop);
  for (const pid_t child : children) reap(child);
  return since.ms();
}

/// Two processes, each of which takes the next of `tasks` when it is through with one.
inline void run_in_two_processes(std::size_t tasks, std::uint64_t steps) {
  const shared<std::atomic<std::size_t>> next;
  const auto body = [&] {
    while (next->fetch_add(1) < tasks) keep(burn(steps));
  };
  const pid_t first = fork_child(body);
  const pid_t second = fork_child(body);
  reap(first);
  reap(second);
}

/// SIGKILL of a busy child: until its pidfd tells, and until a new one has answered.
struct replacement_ms {
  samples noticed{}, replaced{};
};
inline replacement_ms kill_and_replace(int times) {
  const shared<futex_word> answers;
  std::uint32_t number = 0;
  const auto start = [&] {
    const std::uint32_t mine = ++number;
    return fork_child([&] {
      answers->store(mine);
      futex_wake(*answers);
      for (;;) keep(burn(1000));
    });
  };
  const auto await_answer = [&] {
    for (std::uint32_t seen; (seen = answers->load()) != number;) futex_wait(*answers, seen);
  };
  replacement_ms all;
  pid_t child = start();
  await_answer();
  for (int i = 0; i != times; ++i) {
    pollfd end{static_cast<int>(::syscall(SYS_pidfd_open, child, 0)), POLLIN, 0};
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const stopwatch since;
    ::kill(child, SIGKILL);
    ::poll(&end, 1, -1);
    all.noticed.add(since.ms());
    reap(child);
    ::close(end.fd);
    child = start();
    await_answer();
    all.replaced.add(since.ms());
  }
  ::kill(child, SIGKILL);
  reap(child);
  return all;
}

/// MiB that a forked child which only sleeps has of its own.
inline double sleeping_child_mebibytes() {
  const pid_t child = fork_child([] { ::pause(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double own = proc_mebibytes(child, "smaps_rollup", "Private_Dirty");
  ::kill(child, SIGKILL);
  reap(child);
  return own;
}

}  // namespace bench
