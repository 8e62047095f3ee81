// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <iterator>
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

/// Workers forked on this machine: one lane each, started, watched and killed through the zygote, for which a spare one
/// stands by. Models worker_transport; knows nothing of what the lanes carry.
class forked_workers {
 public:
  using port = lane_port;

  /// Reserves the lanes and forks the zygote; starts no worker yet. stand_by() has to follow.
  explicit forked_workers(engine_setup setup)
      : setup_(std::move(setup)),
        region_(size(), std::min(size(), most_spare_lanes)),
        zygote_(std::make_unique<zygote_link>(worker_plan{setup_, region_, bells_}, "/zygote")),
        epoll_(unique_fd(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"))),
        lane_of_(size()) {
    for (std::size_t lane = 0; lane != region_.layout().lanes; ++lane) {
      ports_.push_back(std::make_unique<lane_port>(region_, lane));
      if (lane < size()) {
        lane_of_[lane] = lane;
      } else {
        spare_lanes_.push_back(lane);
      }
    }
    processes_.resize(ports_.size());
    spare_lanes_.reserve(ports_.size());  // lanes come back where nothing may be thrown
    watch(bells_.collector.fd(), bell_tag);
    watch(own_bell_.fd(), own_bell_tag);
    watch(zygote_->fd(), zygote_tag);
  }

  std::size_t size() const noexcept { return static_cast<std::size_t>(setup_.processes); }
  /// That this process may use now. Throws std::bad_alloc.
  std::size_t processors() const { return static_cast<std::size_t>(affinity_cpus()); }
  port& at(std::size_t worker) noexcept { return *ports_[lane_of_[worker]]; }
  const port& at(std::size_t worker) const noexcept { return *ports_[lane_of_[worker]]; }

  /// Stays when all else is released, and has nothing to give then.
  large_memory* memory_for_arguments() noexcept { return &region_.arguments(); }

  /// Starts a worker on its lane, which has none. What becomes of it is news. Throws std::system_error,
  /// out_of_shared_memory.
  void spawn(std::size_t worker, std::uint64_t generation) {
    auto [ours, theirs] = make_registered(make_message_sockets);
    const std::size_t lane = lane_of_[worker];
    region_.prepare(lane);
    at(worker).reset(generation, std::move(ours));
    watch(at(worker).socket(), lane);
    if (!zygote_->spawn(worker, lane, generation, theirs.get())) throw_errno("sendmsg to the zygote");
  }

  /// The first workers have been asked for, and this process has no thread of the pool yet: does while they start what
  /// they do not wait for. Throws std::system_error.
  void stand_by() {
    spare_zygote_ = std::make_unique<zygote_link>(worker_plan{setup_, region_, bells_}, "/spare");
    region_.settle_in();
    oom_.start();
    spare_zygote_->meet();
  }

  /// Kills the worker, unless it is gone: its end is news.
  void kill(std::size_t worker, std::uint64_t generation) noexcept { zygote_->kill(lane_of_[worker], generation); }

  /// Whether set_aside() can be called.
  bool has_spare_lane() const noexcept { return !spare_lanes_.empty(); }

  /// Gives up on a worker whose end does not come: nothing is heard of it any more, and its next process gets another
  /// lane. This one is not used until the process is gone. Nothing is posted to it.
  void set_aside(std::size_t worker) noexcept {
    ports_[lane_of_[worker]]->close();
    lane_of_[worker] = spare_lanes_.back();
    spare_lanes_.pop_back();
  }

  /// Sleeps until a worker rings, something happens, wake() is called, or `deadline` has passed.
  void sleep(steady_time deadline) noexcept {
    const int count =
        ::epoll_wait(epoll_.get(), happened_.data(), static_cast<int>(happened_.size()), milliseconds(deadline));
    happened_count_ = count < 0 ? 0 : static_cast<std::size_t>(count);
  }

  /// Hands on what sleep() woke up for: `to.started(worker, generation, pid)`, `to.refused(worker, generation, errno)`,
  /// `to.ended(worker, generation, worker_end)`, `to.hung_up(worker)` when it has closed its socket (it is gone, or runs
  /// another program: execve(2)). When the zygote is gone: `to.orphaned()` if another one starts workers from now on, or
  /// `to.lost()`; those that are there are killed by the kernel, and `to.vanished(worker)` tells when one is gone.
  template <class Handler>
  void handle(Handler& to) {
    const std::size_t count = std::exchange(happened_count_, 0);
    for (std::size_t i = 0; i != count; ++i) {
      const std::uint64_t tag = happened_[i].data.u64;
      if (tag == bell_tag) {
        bells_.collector.answer();
      } else if (tag == own_bell_tag) {
        own_bell_.answer();
      } else if (tag == zygote_tag) {
        hear_zygote(to);
      } else if ((tag & process_tag) != 0) {
        const auto lane = static_cast<std::size_t>(tag & ~process_tag);
        if (lane >= ports_.size()) continue;
        processes_[lane].reset();
        if (const std::size_t worker = worker_on(lane); worker != size()) {
          to.vanished(worker);
        } else {
          take_in(lane);
        }
      } else if (const auto lane = static_cast<std::size_t>(tag); !ports_[lane]->receive()) {
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, ports_[lane]->socket(), nullptr);
        if (const std::size_t worker = worker_on(lane); worker != size()) to.hung_up(worker);
      }
    }
  }
  void wake() noexcept { own_bell_.ring(); }

  /// Sleeps until a worker rings for the leader, rouse() is called, or `deadline` has passed; or for no reason. One thread
  /// at a time. False if it cannot sleep so. As futex_wait(): no cancellation point, and keeps errno.
  bool rest(steady_time deadline) noexcept {
    const int kept = errno;
    pollfd rings[] = {{bells_.leader.fd(), POLLIN, 0}, {leader_bell_.fd(), POLLIN, 0}};
    timespec left{};
    if (deadline != no_deadline) {
      const auto until = std::max(deadline - std::chrono::steady_clock::now(), steady_time::duration::zero());
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(until);
      left.tv_sec = static_cast<std::time_t>(seconds.count());
      left.tv_nsec = static_cast<long>(std::chrono::nanoseconds(until - seconds).count());
    }
    const long rung =
        ::syscall(SYS_ppoll, rings, std::size(rings), deadline == no_deadline ? nullptr : &left, nullptr, 0);
    const bool slept = rung >= 0 || errno == EINTR;
    if (rung > 0 && rings[0].revents != 0) bells_.leader.answer();
    if (rung > 0 && rings[1].revents != 0) leader_bell_.answer();
    errno = kept;
    return slept;
  }
  /// The thread in rest() returns, or the next that comes there.
  void rouse() noexcept {
    const int kept = errno;
    leader_bell_.ring();
    errno = kept;
  }

  /// No worker is started any more: the zygotes may go when the last one has.
  void depart() noexcept {
    if (std::exchange(departing_, true)) return;
    if (spare_zygote_) spare_zygote_->hang_up();
    zygote_->leave();
  }

  /// Ends the zygotes and every worker that is left, and does not wait for it.
  void hang_up() noexcept {
    zygote_->hang_up();
    if (spare_zygote_) spare_zygote_->hang_up();
  }

  /// After hang_up(): gives up all memory and descriptors. Nothing but size() and stop() may be used any more.
  void release() noexcept {
    ports_.clear();
    processes_.clear();
    epoll_.reset();
    bells_.close();
    own_bell_.close();
    leader_bell_.close();
    oom_.stop();
    region_.release();
  }

  /// After hang_up(): returns when the zygotes are gone.
  void stop() noexcept {
    zygote_->stop();
    if (spare_zygote_) spare_zygote_->stop();
  }

 private:
  static constexpr std::uint64_t bell_tag = ~std::uint64_t{0};
  static constexpr std::uint64_t own_bell_tag = bell_tag - 1;
  static constexpr std::uint64_t zygote_tag = bell_tag - 2;
  static constexpr std::uint64_t process_tag = std::uint64_t{1} << 32;  ///< and the lane
  static constexpr std::size_t most_spare_lanes = 8;

  /// size() if the lane has been set aside.
  std::size_t worker_on(std::size_t lane) const noexcept {
    return static_cast<std::size_t>(std::find(lane_of_.begin(), lane_of_.end(), lane) - lane_of_.begin());
  }

  static registered_fd process_of(pid_t pid) {
    unique_fd process = zygote_process::pidfd_open(pid);
    return process ? registered_fd(std::move(process)) : registered_fd();
  }

  /// The process that a lane was set aside for is gone.
  void take_in(std::size_t lane) {
    if (std::find(spare_lanes_.begin(), spare_lanes_.end(), lane) == spare_lanes_.end()) spare_lanes_.push_back(lane);
  }

  template <class Handler>
  void hear_zygote(Handler& to) {
    zygote_event event{};
    received got;
    while ((got = zygote_->next(event)) == received::message) {
      if (event.lane >= ports_.size()) continue;
      const std::size_t worker = worker_on(event.lane);
      if (worker == size()) {
        if (event.news == zygote_news::ended) {
          processes_[event.lane].reset();
          take_in(event.lane);
        }
        continue;
      }
      switch (event.news) {
        case zygote_news::alive:
          break;
        case zygote_news::started:
          processes_[event.lane] = process_of(event.pid);
          to.started(worker, event.generation, event.pid);
          break;
        case zygote_news::refused:
          to.refused(worker, event.generation, event.error);
          break;
        case zygote_news::ended: {
          processes_[event.lane].reset();
          worker_end end{event.pid, event.status, event.max_resident_bytes};
          if (end.signal() == SIGKILL) end.oom_killed = oom_.has_killed();
          to.ended(worker, event.generation, end);
          break;
        }
      }
    }
    if (got == received::closed) {
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, zygote_->fd(), nullptr);
      watch_processes();
      if (take_over()) {
        to.orphaned();
      } else {
        to.lost();
      }
    }
  }

  /// The spare zygote is the zygote from now on. False if there is none.
  bool take_over() noexcept {
    if (!spare_zygote_ || departing_) return false;
    zygote_->stop();
    zygote_ = std::move(spare_zygote_);
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.u64 = zygote_tag;
    return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, zygote_->fd(), &wanted) == 0;
  }

  /// Without the zygote the kernel kills the workers, but not what they have started, which may also hold copies of their
  /// ends of the sockets, so that these are never seen closed. What they have started is killed here, where the kernel
  /// can (pidfd_send_signal(2), Linux 6.9; a process group's number may be a stranger's by now), and their ends are
  /// seen by descriptors of the processes themselves.
  void watch_processes() noexcept {
    constexpr unsigned process_group = 1u << 2;  // PIDFD_SIGNAL_PROCESS_GROUP
    for (std::size_t lane = 0; lane != ports_.size(); ++lane) {
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
  worker_bells bells_;
  doorbell own_bell_;     ///< the collector's too, but no worker can keep it from ringing
  doorbell leader_bell_;  ///< such a one for rest()
  std::unique_ptr<zygote_link> zygote_;
  std::unique_ptr<zygote_link> spare_zygote_;  ///< runs nothing while it is that
  registered_fd epoll_;
  oom_watch oom_;
  std::vector<std::unique_ptr<lane_port>> ports_;  ///< of every lane
  std::vector<std::atomic<std::size_t>> lane_of_;  ///< each worker's; threads that wake workers hold no lock
  std::vector<std::size_t> spare_lanes_;           ///< those that no process uses
  std::vector<registered_fd> processes_;  ///< by lane (pidfd_open(2)), while there is one and the kernel has those
  std::array<epoll_event, 64> happened_{};
  std::size_t happened_count_ = 0;
  bool departing_ = false;
};

static_assert(worker_transport<forked_workers>);

}  // namespace procpool::detail
