// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/posix/descriptor_registry.hpp>
#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/detail/posix/oom_kills.hpp>
#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>
#include <procpool/detail/scheduler/worker_end.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>
#include <procpool/detail/shared_memory/doorbell.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>
#include <procpool/detail/shared_memory/region.hpp>
#include <procpool/detail/shared_memory/zygote_link.hpp>

namespace procpool::detail {

/// Workers forked on this machine: one lane each, started, watched and killed through the zygote. Models
/// worker_transport; knows nothing of what the lanes carry.
class forked_workers {
 public:
  using port = lane_port;

  /// Reserves the lanes and forks the zygote; starts no worker yet.
  explicit forked_workers(engine_setup setup)
      : setup_(std::move(setup)),
        region_(static_cast<std::size_t>(setup_.processes)),
        zygote_(worker_plan{setup_, region_, bell_}),
        epoll_(unique_fd(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"))) {
    region_.keep_from_children();
    for (std::size_t lane = 0; lane != size(); ++lane) ports_.push_back(std::make_unique<lane_port>(region_, lane));
    processes_.resize(size());
    watch(bell_.fd(), bell_tag);
    watch(zygote_.fd(), zygote_tag);
  }

  std::size_t size() const noexcept { return static_cast<std::size_t>(setup_.processes); }
  port& at(std::size_t lane) noexcept { return *ports_[lane]; }
  const port& at(std::size_t lane) const noexcept { return *ports_[lane]; }

  /// Starts a worker on a lane that has none. What becomes of it is news. Throws std::system_error,
  /// out_of_shared_memory.
  void spawn(std::size_t lane, std::uint64_t generation) {
    auto [ours, theirs] = make_message_sockets();
    region_.prepare(lane);
    at(lane).reset(generation, registered_fd(std::move(ours)));
    watch(at(lane).socket(), lane);
    if (!zygote_.spawn(lane, generation, theirs.get())) throw_errno("sendmsg to the zygote");
  }

  /// Kills the worker, unless it is gone: its end is news.
  void kill(std::size_t lane, std::uint64_t generation) noexcept { zygote_.kill(lane, generation); }

  /// Sleeps until a worker rings, something happens, wake() is called, or `deadline` has passed.
  void sleep(steady_time deadline) noexcept {
    const int count =
        ::epoll_wait(epoll_.get(), happened_.data(), static_cast<int>(happened_.size()), milliseconds(deadline));
    happened_count_ = count < 0 ? 0 : static_cast<std::size_t>(count);
  }

  /// Hands on what sleep() woke up for: `to.started(lane, generation, pid)`, `to.refused(lane, generation, errno)`,
  /// `to.ended(lane, generation, worker_end)`, `to.hung_up(lane)` when a worker has closed its socket (it is gone, or runs
  /// another program: execve(2)), and `to.lost()` when no worker can be started, killed or heard of any more.
  template <class Handler>
  void handle(Handler& to) {
    const std::size_t count = std::exchange(happened_count_, 0);
    for (std::size_t i = 0; i != count; ++i) {
      const std::uint64_t tag = happened_[i].data.u64;
      if (tag == bell_tag) {
        bell_.answer();
      } else if (tag == zygote_tag) {
        hear_zygote(to);
      } else if ((tag & process_tag) != 0) {
        const auto lane = static_cast<std::size_t>(tag & ~process_tag);
        if (lane >= size()) continue;
        processes_[lane].reset();
        to.hung_up(lane);
      } else if (!at(tag).receive()) {
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, at(tag).socket(), nullptr);
        to.hung_up(static_cast<std::size_t>(tag));
      }
    }
  }
  void wake() noexcept { bell_.ring(); }

  /// Ends the zygote and every worker that is left.
  void stop() noexcept { zygote_.stop(); }

  /// Gives up all memory and descriptors: nothing but size() may be used any more.
  void release() noexcept {
    ports_.clear();
    processes_.clear();
    epoll_.reset();
    bell_.close();
    region_.release();
  }

 private:
  static constexpr std::uint64_t bell_tag = ~std::uint64_t{0};
  static constexpr std::uint64_t zygote_tag = bell_tag - 1;
  static constexpr std::uint64_t process_tag = std::uint64_t{1} << 32;  ///< and the lane

  template <class Handler>
  void hear_zygote(Handler& to) {
    zygote_event event{};
    received got;
    while ((got = zygote_.next(event)) == received::message) {
      if (event.lane >= size()) continue;
      switch (event.news) {
        case zygote_news::alive:
          break;
        case zygote_news::started:
          processes_[event.lane] = zygote_process::pidfd_open(event.pid);
          to.started(event.lane, event.generation, event.pid);
          break;
        case zygote_news::refused:
          to.refused(event.lane, event.generation, event.error);
          break;
        case zygote_news::ended: {
          processes_[event.lane].reset();
          worker_end end{event.pid, event.status, event.max_resident_bytes};
          if (end.signal() == SIGKILL) end.oom_killed = oom_.has_killed();
          to.ended(event.lane, event.generation, end);
          break;
        }
      }
    }
    if (got == received::closed) {
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, zygote_.fd(), nullptr);
      watch_processes();
      to.lost();
    }
  }

  /// Without the zygote the kernel kills the workers, but not what they have started, which may also hold copies of their
  /// ends of the sockets, so that these are never seen closed. What they have started is killed here, where the kernel
  /// can (pidfd_send_signal(2), Linux 6.9; a process group's number may be a stranger's by now), and their ends are
  /// seen by descriptors of the processes themselves.
  void watch_processes() noexcept {
    constexpr unsigned process_group = 1u << 2;  // PIDFD_SIGNAL_PROCESS_GROUP
    for (std::size_t lane = 0; lane != size(); ++lane) {
      if (!processes_[lane]) continue;
      ::syscall(SYS_pidfd_send_signal, processes_[lane].get(), SIGKILL, nullptr, process_group);
      epoll_event ended{};
      ended.events = EPOLLIN;
      ended.data.u64 = process_tag | lane;
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, processes_[lane].get(), &ended);
    }
  }

  void watch(int fd, std::uint64_t tag) {
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.u64 = tag;
    checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &wanted), "epoll_ctl");
  }

  static int milliseconds(steady_time deadline) noexcept {
    if (deadline == no_deadline) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
  }

  const engine_setup setup_;
  shared_region region_;
  doorbell bell_;
  zygote_link zygote_;
  registered_fd epoll_;
  oom_watch oom_;
  std::vector<std::unique_ptr<lane_port>> ports_;
  std::vector<unique_fd> processes_;  ///< each worker's (pidfd_open(2)), while there is one and the kernel has those
  std::array<epoll_event, 64> happened_{};
  std::size_t happened_count_ = 0;
};

static_assert(worker_transport<forked_workers>);

}  // namespace procpool::detail
