// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/detail/posix/oom_score.hpp>
#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/shared_memory/worker_main.hpp>

namespace procpool::detail {

enum class zygote_order : std::uint32_t {
  spawn = 1,
  kill = 2,
  leave = 3,  ///< the zygote itself, when it has told of the last worker's end
};

/// From the parent to the zygote. With `spawn` comes the worker's end of the lane's socket.
struct zygote_request {
  zygote_order order;
  std::uint32_t lane;
  std::uint32_t index;  ///< of the worker that is to be started
  std::uint32_t unused;
  std::uint64_t generation;
};

enum class zygote_news : std::uint32_t {
  alive = 1,    ///< the zygote itself: `pid`; a descriptor for its process comes along where the kernel has those
  started = 2,  ///< a worker: `pid`
  refused = 3,  ///< a worker could not be forked: `error`
  ended = 4,    ///< a worker was reaped: `status` as waitpid(2) has it
};

/// From the zygote to the parent.
struct zygote_event {
  zygote_news news;
  std::uint32_t lane;
  std::uint64_t generation;
  std::int32_t pid;
  std::int32_t status;
  std::int32_t error;
  std::uint32_t unused;
  std::uint64_t max_resident_bytes;
};

// ---- zygote side: from fork() to _exit() ---------------------------------------------------------------------------
// Forked from the application before the pool has a thread, it stays single-threaded for ever and runs no code of the
// user: a worker forked from it finds every lock free. It forks, kills and reaps the workers, always killing before it
// reaps, so that no signal can meet a stranger's pid. It ends, and takes its workers along, when the parent's end of
// the socket is closed or the parent's process is gone; when it is killed itself, the kernel kills the workers.
class zygote_process {
 public:
  /// `parent` is a descriptor of the parent's process (pidfd_open(2)), -1 where the kernel has none.
  zygote_process(const worker_plan& plan, int control, int parent) : plan_(plan), control_(control), parent_(parent) {
    workers_.resize(plan.region.layout().lanes);
  }

  [[noreturn]] void run() noexcept {
    pid_ = ::getpid();
    bool serving = introduce();
    read_from_null();
    struct sigaction ignore{};
    ignore.sa_handler = [](int) {};  // with SIG_IGN the kernel would throw exit statuses away
    ::sigaction(SIGCHLD, &ignore, nullptr);
    ::sigset_t all_but_children;
    ::sigfillset(&all_but_children);
    ::sigdelset(&all_but_children, SIGCHLD);

    while (serving) {
      reap();
      pass_on_news();
      if (leaving_ && news_.empty() && count_ == 0) break;
      const short room = news_.empty() ? 0 : POLLOUT;
      pollfd watched[] = {{control_, static_cast<short>(POLLIN | room), 0}, {parent_, POLLIN, 0}};
      if (::ppoll(watched, parent_ >= 0 ? 2 : 1, nullptr, &all_but_children) < 0) {
        if (errno == EINTR) continue;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // short of memory: look without being told to
        watched[0].revents = POLLIN;
      }
      if (watched[1].revents != 0) break;
      if (watched[0].revents != 0) serving = obey();
    }
    bool all_killed = true;
    for (const worker& each : workers_) {
      if (each.pid != 0 && !kill_group(each.pid)) all_killed = false;
    }
    // What this process may not kill is not waited for: the kernel kills it when this process is gone (PDEATHSIG).
    while (all_killed && (::waitpid(-1, nullptr, 0) > 0 || errno == EINTR)) {
    }
    ::_exit(EXIT_SUCCESS);
  }

  /// A descriptor of the process (pidfd_open(2)); none where the kernel has none.
  static unique_fd pidfd_open(pid_t pid) noexcept {
    return above_standard_streams(unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))));
  }

 private:
  bool introduce() noexcept {
    zygote_event hello{};
    hello.news = zygote_news::alive;
    hello.pid = pid_;
    const unique_fd self = pidfd_open(pid_);
    const int fd = self.get();
    return send_message(control_, hello, std::span(&fd, self ? 1 : 0));
  }

  struct worker {
    pid_t pid = 0;
    std::uint64_t generation = 0;
  };

  /// The worker, and what it started and left in its process group. False if the worker may not be killed.
  static bool kill_group(pid_t pid) noexcept {
    const bool allowed = ::kill(pid, SIGKILL) == 0 || errno == ESRCH;
    ::kill(-pid, SIGKILL);
    return allowed;
  }

  /// Does all that the parent has asked for. False when the parent is gone.
  bool obey() noexcept {
    for (;;) {
      zygote_request request{};
      unique_fd socket;
      switch (receive_message(control_, request, [&](unique_fd fd) { socket = std::move(fd); })) {
        case received::nothing:
          score_.restore();
          pass_on_news();
          return true;
        case received::closed:
          return false;
        case received::message:
          break;
      }
      if (request.order == zygote_order::leave) leaving_ = true;
      if (request.lane >= workers_.size()) continue;
      worker& target = workers_[request.lane];
      if (request.order == zygote_order::kill) {
        if (target.pid != 0 && target.generation == request.generation) kill_group(target.pid);
      } else if (request.order == zygote_order::spawn) {
        spawn(request, socket.get());
      }
    }
  }

  void spawn(const zygote_request& request, int socket) noexcept {
    // When memory runs out, the kernel should end a worker before it ends the application. The workers inherit it from this
    // process, which is as close to its end itself until all that are to be started now have been.
    if (socket >= 0) score_.raise(500);
    if (!std::exchange(prepared_, true)) prepare_for_workers();  // one that stands by may never need it
    // A descriptor that finds no room here is dropped without an error (unix(7), MSG_CTRUNC).
    if (socket < 0) errno = EMFILE;
    const pid_t pid = socket < 0 ? -1 : ::fork();
    if (pid == 0) {
      ::close(control_);
      if (parent_ >= 0) ::close(parent_);
      score_.forget();
      worker_main(plan_, request.index, request.lane, socket, pid_);
    }
    zygote_event event{};
    event.news = pid > 0 ? zygote_news::started : zygote_news::refused;
    event.lane = request.lane;
    event.generation = request.generation;
    event.pid = pid;
    event.error = pid > 0 ? 0 : errno;
    if (pid > 0) {
      ::setpgid(pid, pid);  // here too: whoever is first, the group is there when it may have to be killed
      workers_[request.lane] = {pid, request.generation};
      ++count_;
    }
    news_.push_back(event);
  }

  void reap() noexcept {
    for (;;) {
      siginfo_t ended{};
      const auto look = [&] { return ::waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT); };
      if (retry_on_eintr(look) != 0 || ended.si_pid == 0) break;
      ::kill(-ended.si_pid, SIGKILL);  // what it left behind, while its number cannot be anyone else's
      int status = 0;
      struct rusage usage{};
      if (::wait4(ended.si_pid, &status, 0, &usage) != ended.si_pid) continue;
      for (std::size_t lane = 0; lane != workers_.size(); ++lane) {
        if (workers_[lane].pid != ended.si_pid) continue;
        zygote_event event{};
        event.news = zygote_news::ended;
        event.lane = static_cast<std::uint32_t>(lane);
        event.generation = workers_[lane].generation;
        event.pid = ended.si_pid;
        event.status = status;
        event.max_resident_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
        workers_[lane].pid = 0;
        --count_;
        news_.push_back(event);
      }
    }
    pass_on_news();
  }

  /// As far as there is room. This process never waits for the parent to read: the parent may be waiting for this one to.
  void pass_on_news() noexcept {
    while (!news_.empty() && send_or_hang_up(control_, news_.front(), MSG_DONTWAIT)) news_.pop_front();
  }

  const worker_plan& plan_;
  int control_;
  int parent_;
  pid_t pid_ = 0;
  std::vector<worker> workers_;
  oom_score score_;
  std::size_t count_ = 0;  ///< of those that have not been reaped
  bool leaving_ = false;
  bool prepared_ = false;                 ///< for workers to inherit from
  bookkeeping_deque<zygote_event> news_;  ///< for the parent, which its socket has no room for yet
};
// ---- end of zygote side ---------------------------------------------------------------------------------------------

}  // namespace procpool::detail
