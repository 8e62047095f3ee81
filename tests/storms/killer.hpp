// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "history.hpp"
#include "report.hpp"

namespace storms {

/// Kills workers of one pool at random times, one about every `pause` on the average, as an outsider would: from
/// another thread, by SIGKILL. Meanwhile it looks whether the pool's counts add up at every time.
class killer {
 public:
  /// `name` is the pool's, and no other pool's on this machine.
  killer(procpool::process_pool<>& pool, std::string name, std::uint64_t pool_number, history& past, violations& found,
         std::chrono::nanoseconds pause, std::uint64_t seed)
      : pool_(pool),
        name_(std::move(name)),
        number_(pool_number),
        past_(past),
        found_(found),
        pause_(pause),
        random_(seed),
        thread_([this] { run(); }) {}
  killer(const killer&) = delete;
  killer& operator=(const killer&) = delete;
  ~killer() { stop(); }

  void stop() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }
  /// So far.
  std::uint64_t kills() const { return kills_; }

 private:
  void run() {
    while (!ended_) {
      const procpool::pool_stats seen = pool_.stats();
      if (seen.tasks_submitted != seen.tasks_completed + seen.tasks_failed + seen.tasks_queued + seen.tasks_running)
        found_.add("the pool's counts do not add up");
      std::vector<const procpool::worker_stats*> victims;
      for (const auto& each : seen.workers) {
        if (each.alive && each.pid != 0) victims.push_back(&each);
      }
      if (!victims.empty()) kill(*victims[random_.below(victims.size())]);
      if (random_.one_in(20)) continue;  // several in a row
      const auto longest = static_cast<std::uint64_t>(2 * pause_.count());
      if (longest != 0) std::this_thread::sleep_for(std::chrono::nanoseconds(random_.below(longest)));
    }
  }

  void kill(const procpool::worker_stats& victim) {
    const int process = static_cast<int>(::syscall(SYS_pidfd_open, victim.pid, 0));
    if (process < 0) return;
    // The number may be someone else's by now. If that process is of this pool, then so is the one that `process`
    // means, or that one is gone and cannot be hit.
    std::string comm;
    std::ifstream("/proc/" + std::to_string(victim.pid) + "/comm") >> comm;
    if (comm == name_ + "/" + std::to_string(victim.index) &&
        past_.note_kill(number_, victim.index, victim.generation, victim.pid)) {
      if (::syscall(SYS_pidfd_send_signal, process, SIGKILL, nullptr, 0) == 0) ++kills_;
    }
    ::close(process);
  }

  procpool::process_pool<>& pool_;
  const std::string name_;
  const std::uint64_t number_;
  history& past_;
  violations& found_;
  const std::chrono::nanoseconds pause_;
  dice random_;
  std::atomic<std::uint64_t> kills_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace storms
