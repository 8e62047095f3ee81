// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/scheduler/leftovers.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// How a worker's process ended.
struct worker_end {
  pid_t pid = 0;
  int status = 0;  ///< as waitpid(2) has it
  std::size_t max_resident_bytes = 0;
  std::optional<bool> oom_killed{};  ///< of one that SIGKILL ended: whether the kernel did, for want of memory

  bool signalled() const noexcept { return WIFSIGNALED(status); }
  int signal() const noexcept { return signalled() ? WTERMSIG(status) : 0; }
  int exit_status() const noexcept { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }

  /// "worker 31337 ended by signal 11 (SIGSEGV)"
  std::string text() const {
    std::string text = "worker " + std::to_string(pid);
    if (!signalled()) return text + " exited with status " + std::to_string(exit_status());
    text += " ended by signal " + std::to_string(signal());
    if (const char* name = ::sigabbrev_np(signal())) text += std::string(" (SIG") + name + ")";
    return text;
  }

  /// What a task ends in that it took along; std::bad_alloc if there is no memory for the error.
  /// `killed_because`: why the pool killed it; null if it did not. `report`: what it wrote down, if it did.
  std::exception_ptr error(const job& target, std::size_t element, const char* killed_because,
                           std::shared_ptr<const crash_report> report) const noexcept try {
    std::string text = target.place(element) + ": " + this->text();
    if (signal() == SIGKILL) {
      // The pool's own may have come on top: the process of one that the kernel ends takes its time to go.
      text += oom_killed.value_or(false)  ? ", sent by the OOM killer"
              : killed_because != nullptr ? std::string(", sent by the pool: ") + killed_because
              : oom_killed.has_value()    ? ", not sent by the pool"
                                          : ", not sent by the pool (the OOM killer?)";
    }
    if (report && report->signal != signal()) report.reset();  // it did not end as it said
    return std::make_exception_ptr(
        make_error<worker_crashed>(text, pid, signal(), exit_status(), max_resident_bytes, std::move(report)));
  } catch (...) {
    return std::current_exception();
  }
};

/// Fails the elements that the worker took along, and those that end for a reason of their own. Arguments as of
/// worker_end::error().
inline void settle_lost(const bookkeeping_vector<lost_element>& lost, const worker_end& end, const char* killed_because,
                        const std::shared_ptr<const crash_report>& report) noexcept {
  for (const auto& [what, why] : lost) {
    reply how;
    how.error = why ? error_of(*what.target, what.first, *why, {})
                    : end.error(*what.target, what.first, killed_because, report);
    what.target->settle(what.first, how);
  }
}

}  // namespace procpool::detail
