// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <utility>

#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/forced_unwind.hpp>
#include <procpool/detail/posix/growth_meter.hpp>
#include <procpool/detail/posix/process.hpp>
#include <procpool/detail/posix/unique_fd.hpp>
#include <procpool/detail/shared_memory/crash_handler.hpp>
#include <procpool/detail/shared_memory/doorbell.hpp>
#include <procpool/detail/shared_memory/layout.hpp>
#include <procpool/detail/shared_memory/region.hpp>
#include <procpool/detail/shared_memory/stdio_flush.hpp>
#include <procpool/detail/shared_memory/worker_loop.hpp>
#include <procpool/detail/worker_context.hpp>

namespace procpool::detail {

/// What a worker is started from; all of it exists before the zygote forks.
struct worker_plan {
  const engine_setup& setup;
  shared_region& region;
  const worker_bells& bells;
};

// ---- worker side: from fork() to _exit() --------------------------------------------------------------------------
// The parent of this process is the zygote, which has one thread and runs no code of the user: locks are free and the
// heap is whole. What is not ours is given up before any code of the user runs, and the process leaves by _exit() only:
// the destructors, the exit handlers and the buffered output that were inherited belong to the application.

/// `exit` ends here, before any exit handler of the application. Only the worker's own text is written: a process that
/// the task has forked holds a copy of it.
inline void leave_at_exit(int status, void*) {
  if (current_process() == process_worker_context.process) flush_standard_streams();
  ::_exit(status);
}
inline void leave_at_quick_exit() { leave_at_exit(EXIT_SUCCESS, nullptr); }

inline void reset_signal(int signal) noexcept {
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  ::sigaction(signal, &standard, nullptr);  // refused for SIGKILL and SIGSTOP
}

inline void read_from_null() noexcept {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  ::dup2(null, STDIN_FILENO);
  if (null != STDIN_FILENO) ::close(null);
}

/// In the zygote, while all signals are blocked: what its workers inherit from it. Dispositions are as a new program finds
/// them, but for SIGPIPE, which stays as the application has it, and SIGCHLD, which is the zygote's own.
inline void prepare_for_workers() noexcept {
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    if (signal != SIGPIPE && signal != SIGCHLD) reset_signal(signal);
  }
  prepare_crash_handler();
  // Registered last, so it runs first: `exit` in a task ends here.
  ::on_exit(leave_at_exit, nullptr);
  std::at_quick_exit(leave_at_quick_exit);
}

/// The zygote's own disposition is its own, and so is its mask.
inline void reset_signals() noexcept {
  reset_signal(SIGCHLD);
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
}

/// "NAME/3", NAME cut so that the kernel's 15 characters hold the index (prctl(2), PR_SET_NAME).
inline void name_process(const std::string& name, const std::string& suffix) noexcept {
  constexpr std::size_t longest = 15;
  const std::size_t room = longest - std::min(longest, suffix.size());
  char text[longest + 1] = {};
  char* const end = std::copy_n(name.data(), std::min(room, name.size()), text);
  std::copy_n(suffix.data(), std::min(longest, suffix.size()), end);
  ::prctl(PR_SET_NAME, text);
}

inline void report_failure(reply_half& replies, const char* text) noexcept {
  const std::size_t size = std::min(std::strlen(text), failure_text);
  std::memcpy(replies.failure, text, size);
  replies.failure_size = size;
  replies.state.store(worker_state::failed, std::memory_order_release);
}

/// Runs the initializer. False if it failed, which has been reported then.
PROCPOOL_CATCHES_FORCED_UNWIND inline bool initialize(const std::function<void()>& initializer, reply_half& replies) {
  try {
    if (initializer) initializer();
    return true;
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (const std::exception& failure) {
    report_failure(replies, failure.what());
  } catch (...) {
    report_failure(replies, "it threw something that is not a std::exception");
  }
  return false;
}

/// Runs the finalizer; what it throws has no one to go to.
PROCPOOL_CATCHES_FORCED_UNWIND inline void finalize(const std::function<void()>& finalizer) {
  try {
    if (finalizer) finalizer();
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
  }
}

inline void serve(const worker_plan& plan, const request_half& requests, reply_half& replies, int socket) {
  growth_meter growth(plan.setup.max_memory_per_child);
  const bool initialized = initialize(plan.setup.initializer, replies);
  flush_standard_streams();
  if (!initialized) ::_exit(EXIT_FAILURE);
  growth.start();
  worker_loop loop(requests, replies, plan.region.layout().arena_bytes, socket, plan.bells, std::move(growth));
  replies.state.store(worker_state::ready, std::memory_order_release);
  loop.announce();
  loop.run();
  replies.state.store(worker_state::leaving, std::memory_order_release);
  finalize(plan.setup.finalizer);
  flush_standard_streams();
  replies.state.store(worker_state::left, std::memory_order_release);
}

/// The life of a worker, in the process that was forked for it. `zygote` is the id of its parent.
[[noreturn]] inline void worker_main(const worker_plan& plan, std::size_t index, std::size_t lane, int socket,
                                     pid_t zygote) noexcept {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != zygote) ::_exit(EXIT_FAILURE);  // it died before it could be watched
  ::setpgid(0, 0);
  name_process(plan.setup.name, "/" + std::to_string(index));
  if (!plan.region.enter(lane)) ::_exit(EXIT_FAILURE);
  const request_half& requests = plan.region.requests(lane);
  reply_half& replies = plan.region.replies(lane);
  process_worker_context = {.active = true,
                            .index = index,
                            .generation = static_cast<std::size_t>(requests.generation),
                            .process = current_process(),
                            .words = {&requests.stop, &replies.claimed, &replies.published}};
  thread_worker_context = nullptr;
  const encoding_for encoding(nullptr);  // the pool may have been made while arguments for another were encoded
  reset_signals();
  install_crash_handler(replies.crash);
  try {
    serve(plan, requests, replies, socket);
  } catch (...) {
    // `pthread_exit` in a task unwinds to here: the task did not end, and the parent sees that.
    ::_exit(EXIT_FAILURE);
  }
  ::_exit(EXIT_SUCCESS);
}
// ---- end of worker side -------------------------------------------------------------------------------------------

}  // namespace procpool::detail
