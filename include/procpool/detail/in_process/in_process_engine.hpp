// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/forced_unwind.hpp>
#include <procpool/detail/in_process/local_attachments.hpp>
#include <procpool/detail/posix/resident_bytes.hpp>
#include <procpool/detail/worker_context.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Runs every element inside submit(), in its thread. No lock is held while a task runs or a job is settled, so a task
/// may use the pool that runs it; several threads run their own elements at the same time.
class in_process_engine final : public engine {
 public:
  PROCPOOL_CATCHES_FORCED_UNWIND explicit in_process_engine(engine_setup setup)
      : finalizer_(std::move(setup.finalizer)) {
    if (!setup.initializer) return;
    const worker_scope scope(worker_);
    try {
      setup.initializer();
    } catch (const abi::__forced_unwind&) {
      throw;
    } catch (const std::exception& e) {
      throw make_error<worker_start_error>(std::string("process_pool: the initializer threw: ") + e.what());
    } catch (...) {
      throw make_error<worker_start_error>("process_pool: the initializer threw what is no std::exception");
    }
  }

  using engine::submit;
  void submit(std::span<chunk> chunks, afterwards) override {
    require_owned(chunks.empty() ? "submit" : chunks.front().target->operation());
    const auto self = shared_from_this();  // a task may destroy the pool
    const auto mine = enter(chunks);
    try {
      run(*mine);
    } catch (...) {  // run() lets nothing out but the unwinding of a thread that ends (pthread_exit, pthread_cancel)
      abandon(*mine);
      leave(mine);
      throw;
    }
    leave(mine);
  }

  void withdraw(job&) noexcept override {}
  bool cancel(job&) noexcept override { return false; }
  bool running(const job&) const noexcept override { return false; }
  bool help() noexcept override { return false; }

  void close() noexcept override {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

  void terminate() noexcept override {
    std::vector<chunk> unfinished;
    std::unique_lock lock(mutex_);
    closed_ = terminated_ = true;
    for (activity& other : activities_) take_unfinished(other, unfinished);
    activities_.emplace_front().settling = true;
    const auto mine = activities_.begin();
    lock.unlock();
    fail(unfinished, [](const std::string& where) {
      return make_error<pool_terminated>(where + ": the pool was terminated before it finished");
    });
    lock.lock();
    mine->settling = false;
    changed_.notify_all();
    wait_for_others(lock, [](const activity& other) { return other.settling; });
    activities_.erase(mine);
    changed_.notify_all();
  }

  void join() override {
    require_owned("join");
    {
      std::unique_lock lock(mutex_);
      if (!closed_) throw std::logic_error("procpool: join: the pool is neither closed nor terminated");
      wait_for_others(lock, [](const activity&) { return true; });
      if (!joined_) {
        joined_ = true;
        if (finalizer_ && !terminated_) finalize(lock);
      }
    }
    callbacks().drain_and_stop();
  }

  std::size_t processes() const noexcept override { return 1; }

  pool_stats stats() const override {
    const std::lock_guard lock(mutex_);
    pool_stats now = counts_;
    const auto age = std::chrono::steady_clock::now() - start_;
    now.workers_started = 1;
    now.workers.push_back({.index = worker_.index,
                           .pid = current_process(),
                           .generation = worker_.generation,
                           .tasks_completed = counts_.tasks_completed,
                           .busy = busy_,
                           .idle = std::max(std::chrono::nanoseconds{0}, age - busy_),
                           .resident_bytes = resident_bytes(current_process()),
                           .alive = !joined_});
    return now;
  }

 private:
  /// One call in progress that join() waits for. The owner of the elements that it has not finished is whoever takes
  /// them out of it under the lock: the thread that runs them, or terminate().
  struct activity {
    std::thread::id thread = std::this_thread::get_id();
    bool outermost = true;      ///< not begun by a task that this thread runs
    std::vector<chunk> left{};  ///< from `next` on: not begun
    std::size_t next = 0;
    std::optional<chunk> running{};  ///< one element; none: it is not, or no longer, this call's to settle
    bool settling = false;           ///< an element is between `running` and its end
  };
  using activity_place = std::list<activity>::iterator;

  activity_place enter(std::span<chunk> chunks) {
    const std::lock_guard lock(mutex_);
    if (closed_) throw make_error<pool_closed>("the pool takes no more tasks: it was closed or terminated");
    std::list<activity> fresh(1);
    activity& mine = fresh.front();
    mine.outermost = std::none_of(activities_.begin(), activities_.end(),
                                  [&](const activity& other) { return other.thread == mine.thread; });
    mine.left.reserve(chunks.size());
    for (chunk& some : chunks) {
      counts_.tasks_submitted += some.count;
      counts_.tasks_queued += some.count;
      mine.left.push_back(std::move(some));
    }
    activities_.splice(activities_.begin(), fresh);
    return activities_.begin();
  }

  void leave(activity_place mine) noexcept {
    const std::lock_guard lock(mutex_);
    activities_.erase(mine);
    changed_.notify_all();
  }

  /// Runs and settles what is left of `mine`, until there is nothing or terminate() has taken it.
  void run(activity& mine) {
    arguments_ptr current;       // the arguments that `kept` belongs to
    std::shared_ptr<void> kept;  // declared behind: it may refer to them
    while (std::optional<chunk> one = begin_next(mine)) {
      if (one->arguments != current) {
        kept.reset();
        current = one->arguments;
      }
      heap_writer result;
      reply how{.kind = reply_kind::skipped, .stable = true};
      const auto began = std::chrono::steady_clock::now();
      if (!one->skipped()) run_element(*one, result, kept, how);
      const auto took = std::chrono::steady_clock::now() - began;
      if (!end_running(mine, took)) return;
      local_attachments attachments(result);
      byte_reader bytes(result.data(), result.size(), &attachments);
      how.bytes = &bytes;
      const bool completed = one->target->settle(one->first, how);
      end_settling(mine, completed);
    }
  }

  std::optional<chunk> begin_next(activity& mine) {
    const std::lock_guard lock(mutex_);
    while (mine.next != mine.left.size() && mine.left[mine.next].count == 0) mine.left[mine.next++] = {};
    if (mine.next == mine.left.size()) return std::nullopt;
    chunk& front = mine.left[mine.next];
    chunk rest = front.split(1);
    mine.running = std::exchange(front, std::move(rest));
    --counts_.tasks_queued;
    ++counts_.tasks_running;
    return mine.running;
  }

  PROCPOOL_CATCHES_FORCED_UNWIND void run_element(const chunk& one, heap_writer& result, std::shared_ptr<void>& kept,
                                                  reply& how) {
    job& target = *one.target;
    const parted_job* const whole = one.parted();
    local_attachments callable_attachments(whole == nullptr ? one.arguments->bytes : whole->callable);
    local_attachments argument_attachments(one.arguments->bytes);
    const std::size_t begin = one.arguments->begin_of(one.offset);
    byte_reader arguments(one.arguments->bytes.data() + begin, one.arguments->end_of(one.offset) - begin,
                          &argument_attachments);
    call_frame frame{
        .callable = one.callable(&callable_attachments), .arguments = arguments, .result = result, .kept = kept};
    const worker_scope scope(worker_);
    try {
      how.kind = target.code()(frame);
    } catch (const abi::__forced_unwind&) {
      throw;
    } catch (...) {
      how.error = std::current_exception();
    }
  }

  /// Whether the element is still this call's to settle.
  bool end_running(activity& mine, std::chrono::nanoseconds took) {
    const std::lock_guard lock(mutex_);
    if (mine.outermost) busy_ += took;
    if (!mine.running) return false;
    mine.running.reset();
    mine.settling = true;
    return true;
  }

  void end_settling(activity& mine, bool completed) {
    const std::lock_guard lock(mutex_);
    mine.settling = false;
    --counts_.tasks_running;
    ++(completed ? counts_.tasks_completed : counts_.tasks_failed);
    changed_.notify_all();
  }

  /// Moves the elements of `from` that are not finished to `to`. They count as running from now on. Call with the lock.
  void take_unfinished(activity& from, std::vector<chunk>& to) {
    if (from.running) to.push_back(*std::exchange(from.running, std::nullopt));
    for (; from.next != from.left.size(); ++from.next) {
      counts_.tasks_queued -= from.left[from.next].count;
      counts_.tasks_running += from.left[from.next].count;
      to.push_back(std::move(from.left[from.next]));
    }
  }

  /// Settles every element of `unfinished` with what `make` makes of its place.
  template <class Make>
  void fail(const std::vector<chunk>& unfinished, Make make) {
    std::size_t elements = 0;
    for (const chunk& some : unfinished) {
      for (std::size_t i = some.first; i != some.first + some.count; ++i, ++elements) {
        reply how{.error = std::make_exception_ptr(make(some.target->place(i)))};
        some.target->settle(i, how);
      }
    }
    const std::lock_guard lock(mutex_);
    counts_.tasks_running -= elements;
    counts_.tasks_failed += elements;
  }

  /// The thread that plays the worker for `mine` ends in mid-task.
  void abandon(activity& mine) noexcept {
    std::vector<chunk> unfinished;
    {
      const std::lock_guard lock(mutex_);
      take_unfinished(mine, unfinished);
    }
    fail(unfinished, [](const std::string& where) {
      return make_error<worker_crashed>(where + ": the thread that ran the task ended", current_process(), 0, 0,
                                        resident_bytes(current_process()));
    });
  }

  PROCPOOL_CATCHES_FORCED_UNWIND void finalize(std::unique_lock<std::mutex>& lock) {
    activities_.emplace_front();
    const auto mine = activities_.begin();
    lock.unlock();
    try {
      const worker_scope scope(worker_);
      finalizer_();
    } catch (const abi::__forced_unwind&) {
      leave(mine);
      throw;
    } catch (...) {  // as in a worker that leaves: nobody is left to be told
    }
    lock.lock();
    activities_.erase(mine);
    changed_.notify_all();
  }

  /// Waits until no activity of another thread is such. One of this thread's own is below on its stack: waiting for it
  /// would never end.
  template <class Such>
  void wait_for_others(std::unique_lock<std::mutex>& lock, Such such) {
    changed_.wait(lock, [&] {
      return std::none_of(activities_.begin(), activities_.end(), [&](const activity& other) {
        return other.thread != std::this_thread::get_id() && such(other);
      });
    });
  }

  const worker_context worker_{.active = true, .index = 0, .generation = 0};
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const std::function<void()> finalizer_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<activity> activities_;
  bool closed_ = false;
  bool terminated_ = false;
  bool joined_ = false;
  pool_stats counts_{};  ///< its task counts alone
  std::chrono::nanoseconds busy_{0};
};

}  // namespace procpool::detail
