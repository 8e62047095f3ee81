// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <poll.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <procpool/detail/codec/code_map.hpp>
#include <procpool/detail/posix/descriptor_registry.hpp>
#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/detail/posix/signals.hpp>
#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unheard_child.hpp>
#include <procpool/detail/shared_memory/stdio_flush.hpp>
#include <procpool/detail/shared_memory/zygote.hpp>

namespace procpool::detail {

/// The parent's connection to its zygote, which it forks. Throws std::system_error naming the call that failed.
class zygote_link {
 public:
  /// `name`: behind the pool's, in ps and top. Does not wait until the zygote runs: what it is told it will do then.
  zygote_link(const worker_plan& plan, const char* name) {
    auto [ours, theirs] = make_registered(make_message_sockets);
    control_ = std::move(ours);
    const unique_fd parent = zygote_process::pidfd_open(::getpid());
    flush_standard_streams();
    fork_zygote(plan, name, code_map::of_now(), theirs.get(), parent.get());
  }
  zygote_link(const zygote_link&) = delete;
  zygote_link& operator=(const zygote_link&) = delete;
  ~zygote_link() { stop(); }

  /// Returns when the zygote runs. Nothing has been asked of it yet.
  void meet() {
    zygote_event hello{};
    if (receive(hello, 0) != received::message || pid_ < 0) throw_errno("fork of the zygote", EAGAIN);
  }

  /// Readable when there is news, or when the zygote is gone.
  int fd() const noexcept { return control_.get(); }

  /// Asks for the worker `index`, on a lane and with a socket. False if the zygote is gone.
  bool spawn(std::size_t index, std::size_t lane, std::uint64_t generation, int socket) noexcept {
    zygote_request order = request(zygote_order::spawn, lane, generation);
    order.index = static_cast<std::uint32_t>(index);
    return send_message(control_.get(), order, std::span(&socket, 1));
  }
  /// Kills that worker, unless it is gone already; all of them, with the zygote, if it cannot be told which.
  void kill(std::size_t lane, std::uint64_t generation) noexcept {
    send_or_hang_up(control_.get(), request(zygote_order::kill, lane, generation));
  }
  /// Nothing more is asked for: has the zygote end when no worker is left. If it cannot be told, hang_up() ends it.
  void leave() noexcept { send_message(control_.get(), request(zygote_order::leave, 0, 0), {}, MSG_DONTWAIT); }

  received next(zygote_event& event) noexcept { return receive(event, MSG_DONTWAIT); }

  /// Ends the zygote, and with it whatever worker is left. Nothing can be asked for or heard any more.
  void hang_up() noexcept {
    if (!control_) return;
    zygote_event hello{};
    if (pid_ < 0) receive(hello, 0);
    // The connection itself: processes that the application has forked may hold copies of the descriptor.
    ::shutdown(control_.get(), SHUT_RDWR);
    control_.reset();
  }

  /// hang_up(), and returns when the process is gone, or when a worker that cannot be killed (uninterruptible sleep) keeps
  /// it waiting.
  void stop() noexcept {
    hang_up();
    const pid_t pid = std::exchange(pid_, -1);
    if (pid < 0) return;  // it is gone, or it ended before it could say who it is
    constexpr int longest_ms = 2000;
    if (process_) {
      pollfd gone{process_.get(), POLLIN, 0};
      retry_on_eintr([&] { return ::poll(&gone, 1, longest_ms); });
    }
    // The zygote is a child of init, but of this process where it is init, or a subreaper (prctl(2)). By its descriptor,
    // where there is one: once it is gone, its number may be that of another child.
    constexpr auto by_descriptor = static_cast<idtype_t>(3);  // P_PIDFD (waitid(2)), which older headers lack
    siginfo_t ended;
    if (process_) {
      ::waitid(by_descriptor, static_cast<id_t>(process_.get()), &ended, WEXITED | WNOHANG);
    } else {
      retry_on_eintr([&] { return ::waitpid(pid, nullptr, 0); });
    }
    process_.reset();
  }

 private:
  /// The first that a zygote says is who it is.
  received receive(zygote_event& event, int flags) noexcept {
    unique_fd beside;
    const received got = receive_message(control_.get(), event, [&](unique_fd fd) { beside = std::move(fd); }, flags);
    if (got == received::message && event.news == zygote_news::alive && pid_ < 0) {
      pid_ = event.pid;
      process_ = registered_fd(std::move(beside));
    }
    return got;
  }

  static zygote_request request(zygote_order order, std::size_t lane, std::uint64_t generation) noexcept {
    return {
        .order = order, .lane = static_cast<std::uint32_t>(lane), .index = 0, .unused = 0, .generation = generation};
  }

  /// The zygote is no child of the application, whose wait() and SIGCHLD handler are not meant for a process that it does
  /// not know of.
  static void fork_zygote(const worker_plan& plan, const char* name, code_map code, int control, int parent) {
    const all_signals_blocked guard;
    auto& registry = descriptor_registry::instance();
    auto lock = registry.freeze();
    auto zygote = [&] {
      registry.close_all_but(std::array{plan.bells.collector.fd(), plan.bells.leader.fd(), control});
      lock.unlock();
      // No controlling terminal: what a worker writes to it in the background must not stop it (SIGTTOU).
      ::setsid();
      code_map::install(std::move(code));
      name_process(plan.setup.name, name);
      zygote_process(plan, control, parent).run();
    };
    fork_unheard(zygote);
  }

  registered_fd control_;
  registered_fd process_;
  pid_t pid_ = -1;  ///< until it has said who it is
};

}  // namespace procpool::detail
