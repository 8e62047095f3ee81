// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/detail/scheduler/scheduler.hpp>
#include <procpool/detail/shared_memory/doorbell.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>
#include <procpool/detail/shared_memory/region.hpp>
#include <procpool/detail/shared_memory/worker_loop.hpp>
#include <procpool/transport/transport.hpp>

namespace support {

/// Called when a worker of one_thread begins to run, with true, and when it has run all that it was given, with false.
inline void (*on_worker)(bool) = [](bool) {};

/// Workers that run in the thread that wakes them, over the library's own lanes, and a collector that sleeps from the
/// first task to the last: whatever a program asks of the pool it does in one thread, in the same steps each time. Nobody
/// reads while a worker runs, so all that it answers at a time has to fit into its reply ring.
class local_workers {
 public:
  class port : public procpool::detail::lane_port {
   public:
    port(local_workers& host, std::size_t lane) : lane_port(host.region_, lane), host_(host), lane_(lane) {}

    void start(std::uint64_t generation) {
      auto [ours, theirs] = procpool::detail::make_message_sockets();
      socket_ = std::move(theirs);
      reset(generation, procpool::detail::registered_fd(std::move(ours)));
      lane_port::leave();  // to the loop: return when all is run, and wait for nothing
      loop_.emplace(host_.region_.requests(lane_), host_.region_.replies(lane_), host_.region_.layout().arena_bytes,
                    socket_.get(), host_.bells_);
      state(procpool::detail::worker_state::ready);
    }

    bool asleep(procpool::detail::afterwards) const { return !empty() && !left(); }
    bool wake() {
      if (empty() || left()) return false;
      host_.wait_for_collector();
      on_worker(true);
      loop_->run();
      on_worker(false);
      return false;
    }

    void leave() {
      state(procpool::detail::worker_state::left);
      host_.tell({lane_, news::ended});
    }

   private:
    void state(procpool::detail::worker_state now) { host_.region_.replies(lane_).state.store(now); }

    local_workers& host_;
    const std::size_t lane_;
    procpool::detail::unique_fd socket_;
    std::optional<procpool::detail::worker_loop> loop_;
  };

  explicit local_workers(procpool::detail::engine_setup setup)
      : region_(static_cast<std::size_t>(setup.processes)), generations_(size()) {
    for (std::size_t i = 0; i != size(); ++i) ports_.push_back(std::make_unique<port>(*this, i));
  }

  std::size_t size() const noexcept { return region_.layout().lanes; }
  std::size_t processors() const noexcept { return size(); }
  procpool::detail::large_memory* memory_for_arguments() noexcept { return &region_.arguments(); }
  port& at(std::size_t i) noexcept { return *ports_[i]; }
  const port& at(std::size_t i) const noexcept { return *ports_[i]; }

  void spawn(std::size_t i, std::uint64_t generation) {
    region_.prepare(i);
    generations_[i] = generation;
    at(i).start(generation);
    tell({i, news::started});
  }
  void stand_by() noexcept { region_.settle_in(); }
  [[noreturn]] void kill(std::size_t, std::uint64_t) noexcept { std::abort(); }  // it would be this process
  bool has_spare_lane() const noexcept { return false; }
  void set_aside(std::size_t) noexcept {}

  /// No deadline and no wake() ends it while there are workers: only news of them.
  void sleep(procpool::detail::steady_time) noexcept {
    std::unique_lock lock(mutex_);
    asleep_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !news_.empty() || (woken_ && gone_ == size()); });
    asleep_ = woken_ = false;
  }
  void wake() noexcept {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    changed_.notify_all();
  }
  bool rest(procpool::detail::steady_time) noexcept { return false; }  // nobody ever waits
  void rouse() noexcept {}
  template <class Handler>
  void handle(Handler& to) {
    std::unique_lock lock(mutex_);
    const std::vector<news> all = std::exchange(news_, {});
    lock.unlock();
    for (const news& each : all) {
      if (each.what == news::started) {
        to.started(each.worker, generations_[each.worker], ::getpid());
      } else {
        to.ended(each.worker, generations_[each.worker], procpool::detail::worker_end{::getpid()});
      }
    }
  }
  void depart() noexcept {}
  void hang_up() noexcept {}
  void release() noexcept {
    ports_.clear();
    region_.release();
  }
  void stop() noexcept {}

 private:
  struct news {
    enum kind { started, ended };
    std::size_t worker;
    kind what;
  };

  void tell(const news& what) {
    const std::lock_guard lock(mutex_);
    news_.push_back(what);
    if (what.what == news::ended) ++gone_;
    changed_.notify_all();
  }
  void wait_for_collector() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return asleep_ && news_.empty(); });
  }

  procpool::detail::shared_region region_;
  procpool::detail::worker_bells bells_;
  std::vector<std::unique_ptr<port>> ports_;
  std::vector<std::uint64_t> generations_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<news> news_;
  std::size_t gone_ = 0;
  bool woken_ = false;
  bool asleep_ = false;
};

/// The transport of a process_pool whose code, parent's and workers', runs in the thread that uses the pool.
struct one_thread {
  static constexpr bool limits_tasks = false;

  static std::shared_ptr<procpool::detail::engine> start(procpool::detail::engine_setup setup) {
    return std::make_shared<procpool::detail::scheduler<local_workers>>(std::move(setup));
  }
};

static_assert(procpool::transport<one_thread>);

}  // namespace support
