// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/posix/resident_bytes.hpp>
#include <procpool/detail/scheduler/worker_end.hpp>
#include <procpool/detail/scheduler/worker_record.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>
#include <procpool/options.hpp>

namespace procpool::detail {

/// The workers as processes: who is there, who is to be started, sent away, killed or given up. Every member is called
/// under the scheduler's mutex. Tells nobody of what it does; the scheduler does.
template <worker_transport Workers>
class crew {
 public:
  using phase = worker_record::phase;
  using clock = std::chrono::steady_clock;

  /// `max_tasks_per_child`: elements that a worker is given before it is replaced; 0: any number.
  crew(Workers& workers, std::size_t max_tasks_per_child)
      : workers_(workers), max_tasks_per_child_(max_tasks_per_child), size_(workers.size()), records_(size_) {}

  std::size_t size() const noexcept { return size_; }
  worker_record& operator[](std::size_t i) noexcept { return records_[i]; }
  const worker_record& operator[](std::size_t i) const noexcept { return records_[i]; }

  /// From now on a worker that is gone is replaced, until replace(false).
  void replace(bool whether) noexcept {
    replaces_ = whether;
    if (whether) complete_ = true;
  }
  /// From now on a worker that is ready is sent away, and one that left in good order is not counted as retired.
  void depart() {
    replaces_ = false;
    departing_ = true;
    for (std::size_t i = 0; i != size(); ++i) {
      if (records_[i].now == phase::ready) send_away(i);
      if (records_[i].now == phase::starting) {
        records_[i].kill_after(worker_record::longest_leave,
                               "its initializer took longer than 10 s after the pool was closed");
      }
    }
  }

  bool departing() const noexcept { return departing_; }
  bool none_left() const noexcept {
    return std::none_of(records_.begin(), records_.end(), [](const auto& each) { return each.has_process(); });
  }
  bool all_ready() const noexcept {
    return std::all_of(records_.begin(), records_.end(), [](const auto& each) { return each.now == phase::ready; });
  }
  /// The first worker whose last start failed; size() if there is none.
  std::size_t first_failed() const noexcept {
    const auto found =
        std::find_if(records_.begin(), records_.end(), [](const auto& each) { return each.failed_starts != 0; });
    return static_cast<std::size_t>(found - records_.begin());
  }

  /// Whether the worker may be given more, and how many elements more.
  bool takes(std::size_t i) const noexcept {
    const worker_record& record = records_[i];
    return record.now == phase::ready && !record.malformed && !record.killed() && record.under.number == 0 &&
           budget(i) != 0;
  }
  std::size_t budget(std::size_t i) const noexcept {
    if (max_tasks_per_child_ == 0) return std::numeric_limits<std::size_t>::max();
    return max_tasks_per_child_ - static_cast<std::size_t>(workers_.at(i).last() - records_[i].first_number);
  }
  /// Whether it has started an element that is not settled.
  bool running(std::size_t i) const noexcept {
    return records_[i].alive() && !workers_.at(i).empty() && workers_.at(i).claimed() > workers_.at(i).settled();
  }

  void spawn(std::size_t i) {
    worker_record& record = records_[i];
    record.now = phase::starting;
    record.pid = 0;
    record.killed_because = nullptr;
    record.malformed = record.hung_up = record.orphan = false;
    record.under = {};
    record.head = 0;
    record.first_number = workers_.at(i).last();
    record.start_at = record.kill_at = record.killed_at = no_deadline;
    try {
      workers_.spawn(i, record.generation);
    } catch (const std::exception& failure) {
      start_failed(i, text_of([&] { return std::string(failure.what()); }));
    }
  }

  void kill(std::size_t i, const char* why) noexcept {
    note_kill(i, why);
    workers_.kill(i, records_[i].generation);
  }
  /// The process that started the workers is gone, and the kernel kills them.
  void orphan() noexcept {
    for (std::size_t i = 0; i != size(); ++i) {
      if (!records_[i].has_process()) continue;
      records_[i].orphan = true;
      note_kill(i, "the process that started it was killed");
    }
  }
  /// The first worker that was killed a while ago and whose end has not come, as far as there are lanes to go on without
  /// it: it is in uninterruptible sleep, or nobody is there to tell of it. size() if there is none.
  std::size_t first_overdue(steady_time now) const noexcept {
    if (!workers_.has_spare_lane()) return size();
    const auto found =
        std::find_if(records_.begin(), records_.end(), [&](const auto& each) { return overdue_at(each) <= now; });
    return static_cast<std::size_t>(found - records_.begin());
  }
  /// What the worker has written cannot be: nothing of it is read any more, and it is killed.
  void distrust(std::size_t i) noexcept {
    records_[i].malformed = true;
    kill(i, "its replies are malformed");
  }
  void kill_all(const char* why) noexcept {
    for (std::size_t i = 0; i != size(); ++i) {
      if (records_[i].has_process()) kill(i, why);
    }
  }

  /// What the worker was to end, up to `settled`, has ended. If it was not killed for that, it takes tasks again.
  void lift_sentence(std::size_t i, std::uint64_t settled) noexcept {
    if (records_[i].under.number <= settled) records_[i].under = {};
  }

  /// If the worker has run all that it may, or has grown too large, it leaves in good order: true, once. What is posted
  /// to it and has not started it will not start.
  bool retire_if_due(std::size_t i) {
    const auto& port = workers_.at(i);
    if (records_[i].now != phase::ready) return false;
    const bool through = max_tasks_per_child_ != 0 && port.settled() - records_[i].first_number == max_tasks_per_child_;
    if (!through && !port.outgrown()) return false;
    send_away(i);
    return true;
  }

  void started(std::size_t i, pid_t pid) noexcept {
    records_[i].pid = pid;
    ++started_;
  }

  std::string why_given_up(std::size_t i) const {
    return text_of([&] { return "worker " + std::to_string(i) + " cannot be started: " + records_[i].failure; });
  }

  void start_failed(std::size_t i, std::string why) {
    records_[i].start_failed(std::move(why));
    ++records_[i].generation;
  }

  /// Sees that a worker's initializer has ended well; true if that is new. Its lane may say so before the news of its
  /// start, with its id, has come: then it is not ready yet.
  bool notice_ready(std::size_t i) {
    worker_record& record = records_[i];
    if (record.now != phase::starting || record.pid == 0 || !workers_.at(i).initialized()) return false;
    record.now = phase::ready;
    record.failed_starts = 0;
    record.ready_since = clock::now();
    if (departing_) send_away(i);
    return true;
  }

  /// Its end of the socket is closed.
  void hung_up(std::size_t i) noexcept {
    records_[i].hung_up = true;
    records_[i].kill_after(worker_record::longest_hang_up,
                           "it closed its connection to the pool, or runs another program");
  }

  /// The process is gone, and nothing is posted to it any more. Not `for_certain`: it has been given up.
  void ended(std::size_t i, const worker_end& end, bool for_certain) {
    worker_record& record = records_[i];
    auto& port = workers_.at(i);
    const bool served = record.alive();
    const bool in_order = port.left() && end.exit_status() == 0;
    std::string failure = text_of([&] { return port.failure(); });
    port.close();
    if (!for_certain) workers_.set_aside(i);
    record.pid = 0;
    // Until all are there, the end of one that was ready is a failed start like any other: nobody would replace it.
    if (served && (complete_ || departing_)) {
      record.now = phase::vacant;
      ++record.generation;
      if (!in_order) ++crashed_;
      if (in_order && !departing_) ++retired_;
      // Who has run nothing may end so again and again. A task that ends its worker has run, and delays nobody.
      const bool stillborn =
          port.settled() == record.first_number && clock::now() < record.ready_since + worker_record::shortest_life;
      record.stillborn = stillborn ? record.stillborn + 1 : 0;
      if (record.stillborn == worker_record::most_stillborn) {
        record.give_up(text_of([&] { return end.text() + " before it had run anything, like many before it"; }));
      } else if (stillborn) {
        record.start_at = record.ready_since + worker_record::shortest_life;
      } else if (replaces_) {
        spawn(i);
      }
    } else {
      if (failure.empty()) {
        failure = text_of([&] { return end.text() + (served ? " before all were ready" : " while it initialized"); });
      }
      start_failed(i, std::move(failure));
    }
  }

  /// The pool has ended: nothing more is known of a worker that could not be killed, and its lane is about to go.
  void forget_all() noexcept {
    for (worker_record& each : records_) {
      if (each.has_process()) each.now = phase::given_up;
    }
  }

  /// Starts and kills whom it is time to; returns when to look again.
  steady_time tend(steady_time now) {
    steady_time next = no_deadline;
    for (std::size_t i = 0; i != size(); ++i) {
      worker_record& record = records_[i];
      if (record.now == phase::vacant && record.start_at <= now && replaces_) spawn(i);
      if (record.has_process() && record.kill_at <= now) {
        kill(i, record.kill_why);
        record.kill_at = no_deadline;
      }
      if (record.now == phase::vacant && replaces_) next = std::min(next, record.start_at);
      if (record.has_process()) next = std::min(next, record.kill_at);
      if (workers_.has_spare_lane()) next = std::min(next, overdue_at(record));
    }
    return next;
  }

  void describe(pool_stats& all) const {
    all.workers_started = started_;
    all.workers_crashed = crashed_;
    all.workers_retired = retired_;
    for (std::size_t i = 0; i != size(); ++i) all.workers.push_back(describe(i));
  }

 private:
  /// The kernel takes a moment to end a process, some milliseconds where there is nothing in its way.
  static constexpr auto longest_dying = std::chrono::milliseconds(500);

  void note_kill(std::size_t i, const char* why) noexcept {
    worker_record& record = records_[i];
    if (record.killed_because == nullptr) record.killed_because = why;
    if (record.killed_at == no_deadline) record.killed_at = clock::now();
  }
  static steady_time overdue_at(const worker_record& record) noexcept {
    return record.has_process() ? later(record.killed_at, longest_dying) : no_deadline;
  }

  void send_away(std::size_t i) {
    records_[i].now = phase::leaving;
    records_[i].kill_after(worker_record::longest_leave, "its finalizer took longer than 10 s");
    workers_.at(i).leave();
    workers_.at(i).wake();
  }

  worker_stats describe(std::size_t i) const {
    const worker_record& record = records_[i];
    worker_stats one;
    one.index = i;
    one.pid = record.pid;
    one.generation = static_cast<std::size_t>(record.generation);
    one.tasks_completed = record.completed;
    one.alive = record.alive();
    if (!one.alive) return one;
    const auto now = clock::now();
    one.busy = std::min<std::chrono::nanoseconds>(workers_.at(i).busy(now), now - record.ready_since);
    one.idle = (now - record.ready_since) - one.busy;
    one.resident_bytes = resident_bytes(record.pid);
    return one;
  }

  Workers& workers_;
  const std::size_t max_tasks_per_child_;
  const std::size_t size_;
  std::vector<worker_record> records_;
  bool complete_ = false;  ///< all workers have been ready once, at the same time
  bool replaces_ = false;
  bool departing_ = false;
  std::size_t started_ = 0;
  std::size_t crashed_ = 0;
  std::size_t retired_ = 0;
};

}  // namespace procpool::detail
