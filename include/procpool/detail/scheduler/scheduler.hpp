// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/posix/signals.hpp>
#include <procpool/detail/posix/spin.hpp>
#include <procpool/detail/scheduler/bell_watch.hpp>
#include <procpool/detail/scheduler/collecting_role.hpp>
#include <procpool/detail/scheduler/crew.hpp>
#include <procpool/detail/scheduler/heartbeat.hpp>
#include <procpool/detail/scheduler/leftovers.hpp>
#include <procpool/detail/scheduler/reply_batch.hpp>
#include <procpool/detail/scheduler/task_table.hpp>
#include <procpool/detail/scheduler/visitors.hpp>
#include <procpool/detail/scheduler/watchdog.hpp>
#include <procpool/detail/scheduler/worker_end.hpp>
#include <procpool/detail/scheduler/worker_record.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// An engine whose workers are processes: settles each element once, whatever happens to the worker that runs it, and
/// replaces workers that die. What is where, and what goes where, is the table's; this class reads replies, hears of
/// deaths, and keeps the one thread that does both when nobody else does.
///
/// Locks: `role_` first, then `mutex_`. No code of the user (settling, destructors of jobs) runs under `mutex_`.
template <worker_transport Workers>
class scheduler final : public engine {
 public:
  /// Starts the workers; returns when every initializer has ended. Throws worker_start_error: no process is left then.
  explicit scheduler(engine_setup setup)
      : max_queued_(setup.max_queued),
        max_tasks_per_child_(setup.max_tasks_per_child),
        workers_(std::move(setup)),
        crew_(workers_, max_tasks_per_child_),
        table_(workers_, crew_) {
    try {
      start();
    } catch (...) {
      finish();
      throw;
    }
  }
  ~scheduler() override { finish(); }

  using engine::submit;
  void submit(std::span<chunk> chunks, afterwards next) override {
    require_owned("submit");
    std::optional<visitors::visit> here;
    leftovers done;
    {
      std::unique_lock lock = lock_soon(mutex_);
      require_open();
      bool divisible = false;
      for (chunk& each : chunks) {
        while (each.count != 0) {
          const std::size_t room = wait_for_room(lock, done, here);
          if (heartbeat_.submitted()) workers_.wake();  // it may have ceased while this waited
          chunk rest;
          if (each.count > room) rest = each.split(room);
          const bool bound = each.lane != chunk::any_lane;
          if (each.count != 1) divisible = true;
          bell_.expect(next);
          table_.add(std::move(each), done);
          if (bound) give_up(done);  // its worker may be
          if (rest.count == 0) break;
          each = std::move(rest);
        }
      }
      if (divisible) table_.balance(done);
      look_by(table_.take_soonest_look(), done);
      // Most times the workers are awake, and nothing is left to do without the lock.
      done.to_wake.erase_if([&](std::size_t i) { return !workers_.at(i).asleep(next); });
      if (!here && !done.nothing()) here.emplace(visitors_);
    }
    finish_up(done);
  }

  large_memory* memory_for_arguments() noexcept override { return workers_.memory_for_arguments(); }

  void withdraw(job& target) noexcept override { cancel(target, false); }
  bool cancel(job& target) noexcept override { return cancel(target, true); }

  bool running(const job& target) const noexcept override {
    const std::lock_guard lock(mutex_);
    return !finished_ && table_.running(target);
  }

  bool help() noexcept override {
    if (!role_.try_lock()) return false;
    bool any = false;
    // The lanes stay while this thread has the role and finish() had not come so far.
    table_.busy().for_each([&](std::size_t i) {
      if (!finished_.load(std::memory_order_relaxed) && !workers_.at(i).quiet() && collect(i)) any = true;
    });
    role_.unlock();
    return any;
  }

  void watch(bool whether) noexcept override {
    if (!bell_.watch(whether) || role_.mine()) return;
    while (anything_published()) {
      const std::lock_guard role(role_);
      collect();
    }
  }

  bool lead() noexcept override { return !led_.exchange(true, std::memory_order_acquire); }
  void follow() noexcept override { led_.store(false, std::memory_order_release); }
  bool rest(resting how, steady_time deadline) noexcept override {
    const visitors::visit here(leaders_);
    if (finished_ || role_.mine()) return false;
    bell_.rest();
    const bool slept = (how == resting::until_news && anything_published()) || workers_.rest(deadline);
    bell_.rise();
    return slept;
  }
  void rouse() noexcept override {
    const visitors::visit here(visitors_);
    if (!finished_) workers_.rouse();
  }

  void close() noexcept override {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

  void terminate() noexcept override {
    const visitors::visit here(visitors_);
    leftovers done;
    {
      const std::lock_guard lock(mutex_);
      if (finished_) return;
      closed_ = terminated_ = true;
      table_.end_all(end_cause::terminated, {}, done);
      crew_.replace(false);
      crew_.kill_all("terminate()");
    }
    changed_.notify_all();
    workers_.wake();
    finish_up(done);
    // What was published before the kill counts. A worker that cannot be killed (uninterruptible sleep) holds up nobody.
    if (!role_.mine()) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, unkillable_after, [&] { return crew_.none_left(); });
    }
    {
      const auto role = role_.lock_unless_mine();
      const std::lock_guard lock(mutex_);
      for (std::size_t i = 0; !finished_ && i != crew_.size(); ++i) table_.abandon_posted(i, done);
    }
    finish_up(done);
  }

  void join() override {
    require_owned("join");
    {
      const std::lock_guard lock(mutex_);
      if (!closed_) throw std::logic_error("procpool: join: the pool is still open: close() or terminate() it first");
    }
    finish();
    callbacks().drain_and_stop();
  }

  std::size_t processes() const noexcept override { return crew_.size(); }

  pool_stats stats() const override {
    // A future is ready a moment before its element is counted; whoever has the role waits for that moment.
    const auto role = role_.lock_unless_mine();
    const std::lock_guard lock(mutex_);
    pool_stats all;
    all.tasks_submitted = table_.submitted;
    all.tasks_completed = table_.completed;
    all.tasks_failed = table_.failed;
    all.tasks_running = table_.running();
    all.tasks_queued = table_.in_flight() - all.tasks_running;
    crew_.describe(all);
    return all;
  }

 private:
  friend Workers;  // hands on its news
  using phase = worker_record::phase;
  using clock = std::chrono::steady_clock;

  static constexpr auto unkillable_after = std::chrono::milliseconds(500);

  // ---- starting and ending -----------------------------------------------------------------------------------------

  void start() {
    {
      const std::lock_guard lock(mutex_);
      for (std::size_t i = 0; i != crew_.size(); ++i) crew_.spawn(i);
    }
    workers_.stand_by();
    {
      const all_signals_blocked guard;
      collector_ = std::thread([this] { run_collector(); });
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return crew_.all_ready() || crew_.first_failed() != crew_.size(); });
    if (const std::size_t i = crew_.first_failed(); i != crew_.size()) {
      throw make_error<worker_start_error>("worker " + std::to_string(i) +
                                           " could not be started: " + crew_[i].failure);
    }
    crew_.replace(true);
    serving_ = true;
  }

  /// Waits for what was submitted, unless terminated; has the workers leave; ends all helpers. Once; others wait for it.
  void finish() noexcept {
    const std::lock_guard once(finishing_);
    if (finished_) return;
    {
      std::unique_lock lock(mutex_);
      closed_ = true;
      if (serving_)
        changed_.wait(lock, [&] { return visitors_.none() && table_.in_flight() == 0 && table_.unsettled == 0; });
      if (!serving_) crew_.kill_all("another worker could not be started");
      crew_.depart();
      if (collector_.joinable()) {
        workers_.wake();
        // As long as it takes; but no worker that cannot be killed holds this up, once they all are to be.
        const auto gone = [&] { return crew_.none_left(); };
        changed_.wait(lock, [&] { return gone() || terminated_ || !serving_; });
        changed_.wait_for(lock, unkillable_after, gone);
      }
      finished_ = true;
      workers_.rouse();  // what the leader waits for may be no task of this pool
      changed_.wait(lock, [&] { return visitors_.none() && leaders_.none(); });  // they use bells without the lock
    }
    if (collector_.joinable()) {
      workers_.wake();
      collector_.join();
    }
    workers_.hang_up();
    {
      // A thread that collects may be about to post a callback, which is due before join() returns.
      const auto role = role_.lock_unless_mine();
      const std::lock_guard lock(mutex_);
      crew_.forget_all();
      workers_.release();
    }
    workers_.stop();
  }

  void require_open() const {
    if (closed_) throw error_access::make<pool_closed>("procpool: submit: the pool is closed");
    if (broken_) throw make_error<pool_broken>("submit: " + table_.why_broken());
  }

  // ---- the queue (all under mutex_) --------------------------------------------------------------------------------

  /// How many elements may be added now; waits until it is at least one.
  std::size_t wait_for_room(std::unique_lock<std::mutex>& lock, leftovers& done, std::optional<visitors::visit>& here) {
    constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();
    if (max_queued_ == 0 || callbacks().here() || role_.mine()) return unlimited;
    if (!here) here.emplace(visitors_);
    wake(done);
    const auto waiting = [&] { return table_.in_flight() - table_.occupied(); };
    changed_.wait(lock, [&] { return waiting() < max_queued_ || table_.ending(); });
    return table_.ending() ? unlimited : max_queued_ - waiting();
  }

  /// Ends what has not started of the job, and if so wanted what runs. True if there was anything.
  bool cancel(job& target, bool running_too) noexcept {
    const visitors::visit here(visitors_);
    leftovers done;
    bool any = false;
    {
      const std::lock_guard lock(mutex_);
      if (finished_) return false;
      table_.withdraw([&](const chunk& each) { return each.target.get() == &target; }, end_cause::cancelled, done);
      any = !done.ended.empty();
      if (running_too) {
        steady_time next = no_deadline;
        if (watchdog_.cancel(target, clock::now(), next, done)) any = true;
        table_.dispatch(done);
        look_by(next, done);
      }
      look_by(table_.take_soonest_look(), done);
    }
    finish_up(done);
    return any;
  }

  /// The collector has to look at this time at the latest.
  void look_by(steady_time when, leftovers& done) noexcept {
    if (when >= planned_) return;
    planned_ = when;
    done.wake_collector = true;
  }

  // ---- settling (no lock held) -------------------------------------------------------------------------------------

  void wake(leftovers& done) noexcept {
    bool any_slept = false;
    done.to_wake.for_each([&](std::size_t i) {
      if (workers_.at(i).wake()) any_slept = true;
    });
    if (any_slept) woken();
    done.to_wake.clear();
    if (std::exchange(done.wake_collector, false)) workers_.wake();
  }

  void finish_up(leftovers& done) noexcept {
    wake(done);
    if (!done.ended.empty()) {
      const std::size_t count = settle_ended(done);
      const std::lock_guard lock(mutex_);
      table_.unsettled -= count;
      changed_.notify_all();
    }
  }

  // ---- collecting (under role_) ------------------------------------------------------------------------------------

  /// Settles what is there, some of each worker's, so that news of a death never waits long. True if there was something.
  bool collect() noexcept {
    bool any = false;
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      if (collect(i)) any = true;
    }
    return any;
  }

  bool collect(std::size_t i) noexcept {
    typename Workers::port* port;  // stays while this thread collects
    {
      const auto lock = lock_soon(mutex_);
      if (finished_) return false;
      if (crew_.notice_ready(i) && !serving_ && crew_.all_ready()) changed_.notify_all();
      port = &workers_.at(i);
      if (!crew_[i].alive() || crew_[i].malformed || port->empty()) return false;
      const auto published = port->published(port->settled(), port->last());
      if (!published) {
        crew_.distrust(i);
        return false;
      }
      replies_.list(*port, port->settled(), *published, crew_[i].under);
      if (replies_.empty()) return false;
    }
    replies_.read(*port);
    leftovers done;
    {
      const auto lock = lock_soon(mutex_);
      replies_.settle(*port);
      table_.completed += replies_.values();
      table_.failed += replies_.failures();
      crew_[i].completed += replies_.values();
      crew_.lift_sentence(i, replies_.settled());
      if (replies_.malformed()) crew_.distrust(i);
      if (replies_.stops_job())
        table_.withdraw([](const chunk& each) { return each.skipped(); }, end_cause::skipped, done);
      if (crew_.retire_if_due(i)) table_.recall(i, port->claimed(), done);
      table_.refill(i, replies_.values() + replies_.failures(), done);
      look_by(table_.take_soonest_look(), done);
      if (table_.in_flight() == 0) bell_.expect_nothing();
      notify_progress();
    }
    carried(port->carried());
    port->taken(replies_.settled());
    finish_up(done);
    return replies_.drop();
  }

  /// Under mutex_: whoever waits for elements to end, or for room in the queue, looks again.
  void notify_progress() noexcept {
    if (!visitors_.none() || closed_) changed_.notify_all();
  }

  // ---- workers come and go (under mutex_, but for the news) ----------------------------------------------------------

  /// Ends what can run nowhere any more.
  void give_up(leftovers& done) {
    bool any_left = false;
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      const worker_record& record = crew_[i];
      if (record.now != phase::given_up) {
        any_left = true;
      } else {
        table_.end_own(i, crew_.why_given_up(i), done);
      }
    }
    if (!any_left) break_pool(text_of([&] { return "no worker can be started: " + crew_[0].failure; }), done);
  }

  void break_pool(std::string why, leftovers& done) {
    broken_ = true;
    crew_.replace(false);
    table_.end_all(end_cause::broken, std::move(why), done);
    changed_.notify_all();
  }

  void started(std::size_t i, std::uint64_t generation, pid_t pid) noexcept {
    const std::lock_guard lock(mutex_);
    if (crew_[i].generation == generation) crew_.started(i, pid);
  }

  void refused(std::size_t i, std::uint64_t generation, int error) noexcept {
    leftovers done;
    {
      const std::lock_guard lock(mutex_);
      if (crew_[i].generation != generation || crew_[i].now != phase::starting) return;
      workers_.at(i).close();
      crew_.start_failed(i, text_of([&] { return "fork: " + std::generic_category().message(error); }));
      give_up(done);
      changed_.notify_all();
    }
    finish_up(done);
  }

  void ended(std::size_t i, std::uint64_t generation, const worker_end& end) noexcept {
    ended(i, generation, end, true);
  }

  /// First what the worker has published counts, then what it had started fails, then what it had not started goes
  /// elsewhere. Its lane is used again only if its process is gone for certain.
  void ended(std::size_t i, std::uint64_t generation, const worker_end& end, bool for_certain) noexcept {
    {
      const std::lock_guard lock(mutex_);
      if (crew_[i].generation != generation || !crew_[i].has_process()) return;
    }
    while (collect(i)) {
    }
    leftovers done;
    lose_started(i, end, done);
    {
      const std::lock_guard lock(mutex_);
      table_.abandon_posted(i, done);
      crew_.ended(i, end, for_certain);
      give_up(done);
      table_.withdraw([](const chunk& each) { return each.skipped(); }, end_cause::skipped, done);
      if (!crew_.departing() || crew_.none_left()) changed_.notify_all();
    }
    finish_up(done);
  }

  /// Fails what the worker was running, unless it is to be run again.
  void lose_started(std::size_t i, const worker_end& end, leftovers& done) {
    bookkeeping_vector<lost_element> lost;
    const char* because = nullptr;
    std::shared_ptr<const crash_report> report;
    {
      const std::lock_guard lock(mutex_);
      if (!crew_[i].alive()) return;
      lost = table_.take_started(i, done);
      because = crew_[i].killed_because;
      if (!lost.empty()) report = report_of(workers_.at(i));
    }
    settle_lost(lost, end, because, report);
  }

  void hung_up(std::size_t i) noexcept {
    {
      const std::lock_guard lock(mutex_);
      crew_.hung_up(i);
    }
    // The kernel ends those that were left behind, their memory before their sockets. But this one may have closed its own.
    if (lost_ || crew_[i].orphan) give_up_on(i);
  }

  /// The kernel has ended a worker that was left behind.
  void vanished(std::size_t i) noexcept { ended(i, crew_[i].generation, worker_end{crew_[i].pid, SIGKILL, 0}); }

  /// The workers that are there are being ended by the kernel; those that replace them start as ever.
  void orphaned() noexcept {
    {
      const std::lock_guard lock(mutex_);
      crew_.orphan();
    }
    give_up_on_hung_up();
  }

  /// No worker can be started, killed or heard of any more: the kernel kills those that are left.
  void lost() noexcept {
    leftovers done;
    {
      const std::lock_guard lock(mutex_);
      lost_ = true;
      break_pool(text_of([] { return std::string("the process that starts the workers is gone"); }), done);
    }
    finish_up(done);
    give_up_on_hung_up();
  }

  void give_up_on_hung_up() noexcept {
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      if (crew_[i].hung_up) give_up_on(i);
    }
  }

  /// The end of a worker that was killed does not come, or nobody is there to tell of it: goes on without it.
  void give_up_on(std::size_t i) noexcept {
    const bool for_certain = lost_;  // nothing is started any more
    if (!for_certain && !workers_.has_spare_lane()) return;
    ended(i, crew_[i].generation, worker_end{crew_[i].pid, SIGKILL, 0}, for_certain);
  }

  // ---- the collector -------------------------------------------------------------------------------------------------

  void run_collector() noexcept {
    for (;;) {
      steady_time deadline;
      std::size_t overdue;
      {
        const std::lock_guard role(role_);
        collect();
        leftovers done;
        {
          const std::lock_guard lock(mutex_);
          if (finished_ || (crew_.departing() && crew_.none_left())) return;
          deadline = tend(done);
          overdue = crew_.first_overdue(clock::now());
        }
        finish_up(done);
        if (overdue != crew_.size()) give_up_on(overdue);
      }
      bell_.fall_asleep();
      if (anything_published()) deadline = steady_time();
      workers_.sleep(deadline);
      bell_.wake_up();
      const std::lock_guard role(role_);
      workers_.handle(*this);
    }
  }

  bool anything_published() const noexcept {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; !finished_ && i != crew_.size(); ++i) {
      const auto& port = workers_.at(i);
      if (crew_[i].alive() && !crew_[i].malformed && !port.empty() &&
          port.published(port.settled(), port.last()) != port.settled())
        return true;
    }
    return false;
  }

  /// Does what is due, and tells when to look again.
  steady_time tend(leftovers& done) {
    const steady_time now = clock::now();
    if (crew_.departing()) workers_.depart();
    steady_time next = crew_.tend(now);
    if (serving_) give_up(done);
    next = std::min(next, watchdog_.tend(now, done));
    next = std::min(next, table_.tend(now, done));
    next = std::min(next, heartbeat_.tick(now, !table_.queue_empty()));
    return planned_ = next;
  }

  const std::size_t max_queued_;
  const std::size_t max_tasks_per_child_;
  Workers workers_;
  crew<Workers> crew_;                           ///< who is there
  task_table<Workers> table_;                    ///< what is where
  reply_batch<typename Workers::port> replies_;  ///< under role_
  watchdog<Workers> watchdog_{workers_, crew_, table_};
  heartbeat<Workers> heartbeat_{workers_, crew_};
  mutable collecting_role role_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  ///< workers or counts have changed

  bell_watch<Workers> bell_{workers_};
  /// Threads that are at the lanes without the lock, or in cancel() or terminate(): the lanes stay while there are any.
  visitors visitors_{closed_, mutex_, changed_};
  visitors leaders_{closed_, mutex_, changed_};  ///< the same of rest(), which nobody waits for to end by itself
  steady_time planned_{};                        ///< when the collector means to look again
  std::atomic<bool> led_{false};                 ///< a thread is the leader
  bool serving_ = false;                         ///< the workers have all started once
  std::atomic<bool> closed_{false};              ///< changes under mutex_
  bool terminated_ = false;
  bool broken_ = false;
  bool lost_ = false;                  ///< under role_
  std::atomic<bool> finished_{false};  ///< the collector is to end, and the lanes are about to go; changes under mutex_

  std::mutex finishing_;
  std::thread collector_;
};

}  // namespace procpool::detail
