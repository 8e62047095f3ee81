// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include <procpool/detail/callback_thread.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/posix/process.hpp>
#include <procpool/detail/waiting.hpp>
#include <procpool/options.hpp>

namespace procpool::detail {

/// What the thread that submits does next: it goes on, or it watches (engine::watch) until all has ended that it has
/// submitted, and nobody else need be woken for that.
enum class afterwards { goes_on, watches };

/// The pool as futures and lazy ranges see it: takes chunks of jobs and settles each of their elements, whatever
/// happens. One derived class per kind of transport. Safe to call from several threads.
class engine : public std::enable_shared_from_this<engine> {
 public:
  engine() = default;
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;
  virtual ~engine() = default;

  /// Takes the chunks (moved from) and will settle each of their elements exactly once. May block on max_queued.
  /// Throws pool_closed, pool_broken, or std::logic_error in a process that did not construct the pool: nothing was taken.
  virtual void submit(std::span<chunk> chunks, afterwards next) = 0;
  void submit(std::span<chunk> chunks) { submit(chunks, afterwards::goes_on); }

  /// Where large arguments of its tasks are best encoded; null: anywhere. An engine that has such memory settles what no
  /// worker needs any more, and has none of it in its chunks once join() returns.
  virtual large_memory* memory_for_arguments() noexcept { return nullptr; }

  /// Settles with task_cancelled every element of `target` that has not started.
  virtual void withdraw(job& target) noexcept = 0;

  /// Besides, has what runs of `target` end in task_cancelled: after its grace its worker is killed. Does not wait for
  /// that. True if anything had not ended.
  virtual bool cancel(job& target) noexcept = 0;

  /// Whether a worker has started an element of `target` that is not settled yet.
  virtual bool running(const job& target) const noexcept = 0;

  /// Settles what is ready to be settled, without blocking; true if there was something. For threads that wait.
  virtual bool help() noexcept = 0;
  /// Between watch(true) and watch(false) this thread calls help() all the time: no other need be woken for what it sees.
  virtual void watch(bool /*whether*/) noexcept {}

  /// One thread at a time, which watches, may sleep where it is the first to hear of what workers have done: the leader.
  /// True if this is the one from now on, until it calls follow(). False where another one is, or nobody can.
  virtual bool lead() noexcept { return false; }
  virtual void follow() noexcept {}
  /// The leader sleeps until there may be something to settle, or, for a moment, until a worker rings though there is;
  /// until rouse() is called, or the deadline has passed. Meanwhile it does not watch. False if it cannot sleep here.
  virtual bool rest(resting /*how*/, steady_time /*deadline*/) noexcept { return false; }
  /// Wakes the leader: somebody else has settled what it waits for.
  virtual void rouse() noexcept {}

  /// What is known of how long the next result takes.
  look_ahead expected() const noexcept {
    return {carried_lately_.load(std::memory_order_relaxed),
            steady_time(steady_time::duration(woken_lately_.load(std::memory_order_relaxed)))};
  }

  virtual void close() noexcept = 0;
  virtual void terminate() noexcept = 0;
  virtual void join() = 0;
  virtual std::size_t processes() const noexcept = 0;
  virtual pool_stats stats() const = 0;

  /// Runs then(), coroutines and progress, one after the other, in one thread that starts when first needed.
  callback_thread& callbacks() noexcept { return *callbacks_; }

  /// Whether this process constructed the pool: no other may use it.
  bool owned() const noexcept { return owner_ == current_process(); }
  void require_owned(const char* operation) const {
    if (!owned()) throw_not_owned(operation);
  }

 protected:
  /// The bytes that a task which has ended came with and left: the next one is likely to be like it.
  void carried(std::size_t bytes) noexcept { carried_lately_.store(bytes, std::memory_order_relaxed); }
  /// A worker that slept has been woken.
  void woken() noexcept {
    woken_lately_.store(std::chrono::steady_clock::now().time_since_epoch().count(), std::memory_order_relaxed);
  }

 private:
  [[noreturn, gnu::cold]] static void throw_not_owned(const char* operation) {
    throw std::logic_error(std::string("procpool: ") + operation +
                           ": the pool belongs to another process, which constructed it");
  }

  std::atomic<std::size_t> carried_lately_{0};
  std::atomic<steady_time::rep> woken_lately_{0};
  const pid_t owner_ = current_process();
  const std::shared_ptr<callback_thread> callbacks_ = std::make_shared<callback_thread>();
};

}  // namespace procpool::detail
