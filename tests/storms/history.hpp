// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>

#include <procpool/procpool.hpp>

#include "report.hpp"

namespace storms {

/// What became of every task that was ever submitted, by its id, and of every worker that was killed. Tasks count
/// their runs in memory that all processes share; everything else is the parent's.
///
/// Holds for each id: at most one run (with retries, as many more), exactly one outcome; a value means one run at least
/// and is the right one. For each worker killed from outside: at most one task failed by it; no task fails by
/// a worker that was not.
class history {
 public:
  static constexpr std::size_t capacity = std::size_t{1} << 27;

  explicit history(violations& found) : found_(found) {
    runs_ = map(MAP_SHARED);
    outcomes_ = map(MAP_PRIVATE);
    terms_ = map(MAP_PRIVATE);
  }
  history(const history&) = delete;
  history& operator=(const history&) = delete;

  /// `n` ids in a row, for tasks that may run again `retries` times, and may time out if they are `limited`.
  std::uint64_t new_ids(std::uint64_t n, std::uint8_t retries = 0, bool limited = false) {
    const std::uint64_t first = next_.fetch_add(n);
    if (first + n > capacity) std::abort();
    const auto terms = static_cast<std::uint8_t>(retries | (limited ? limited_bit : 0));
    if (terms != 0) {
      for (std::uint64_t i = 0; i != n; ++i) terms_[first + i] = terms;
    }
    return first;
  }
  std::uint64_t ids() const { return next_ - first_id; }

  /// In the task, before anything else.
  static void note_run(std::uint64_t id) { runs_[id].fetch_add(1); }
  static int runs(std::uint64_t id) { return runs_[id].load(); }

  // ---- outcomes ---------------------------------------------------------------------------------------------------

  void value(std::uint64_t id, bool right) {
    outcome(id);
    ++values;
    if (!right) found_.add("task ", id, ": a wrong result");
    if (runs(id) == 0) found_.add("task ", id, ": a result, but it never ran");
  }

  /// Ended without the caller hearing how: of an element behind the first failure of a map, or of a range given up.
  void unseen(std::uint64_t id) { outcome(id); }

  void cancelled(std::uint64_t id) {
    outcome(id);
    ++cancels;
  }

  /// What the task's failure is; throws away what is allowed.
  void failed(std::uint64_t id, const std::exception_ptr& failure, bool throws) {
    outcome(id);
    check_failure(id, failure, throws);
  }

  /// Of a call that stands for many tasks as well. Returns the index that the error names, if it names one.
  std::uint64_t check_failure(std::uint64_t id, const std::exception_ptr& failure, bool throws) {
    try {
      std::rethrow_exception(failure);
    } catch (const procpool::worker_crashed& crash) {
      ++crashes;
      if (crash.signal() != SIGKILL) found_.add("task ", id, ": not the signal that was sent: ", crash.what());
      blame(crash.pid(), crash.what());
      return index_in(crash.what());
    } catch (const std::out_of_range& thrown) {
      ++exceptions;
      const std::uint64_t thrower = std::stoull(thrown.what());
      if (!throws) found_.add("task ", id, ": an exception of task ", thrown.what());
      if (runs(thrower) == 0) found_.add("task ", thrower, ": an exception, but it never ran");
      return thrower;
    } catch (const procpool::task_timeout& late) {
      ++timeouts;
      if ((terms_[id] & limited_bit) == 0) found_.add("task ", id, ": no time limit, but ", late.what());
    } catch (const std::exception& other) {
      found_.add("task ", id, ": ", other.what());
    }
    return none;
  }

  static constexpr std::uint64_t none = ~std::uint64_t{0};

  // ---- kills ------------------------------------------------------------------------------------------------------

  /// Before the signal is sent. False if that worker has been killed before.
  bool note_kill(std::uint64_t pool, std::size_t index, std::size_t generation, pid_t pid) {
    const std::lock_guard lock(mutex_);
    if (!killed_.insert({pool, index, generation}).second) return false;
    ++kills_of_[pid];
    ++kills_in_[pool];
    return true;
  }
  std::size_t kills_in(std::uint64_t pool) {
    const std::lock_guard lock(mutex_);
    return kills_in_[pool];
  }

  /// Once all has ended.
  void check_all() {
    for (std::uint64_t id = checked_; id != next_; ++id) {
      if (runs(id) > 1 + (terms_[id] & ~limited_bit)) found_.add("task ", id, ": ran ", runs(id), " times");
      if (outcomes_[id].load() != 1) found_.add("task ", id, ": has ", int{outcomes_[id].load()}, " outcomes");
    }
    checked_ = next_;
    const std::lock_guard lock(mutex_);
    for (const auto& [pid, count] : crashes_of_) {
      if (count > kills_of_[pid])
        found_.add("worker ", pid, ": killed ", kills_of_[pid], " times, but cost ", count, " tasks");
    }
  }

  std::atomic<std::uint64_t> values{0}, crashes{0}, exceptions{0}, cancels{0}, timeouts{0};

 private:
  using cell = std::atomic<std::uint8_t>;

  static cell* map(int kind) {
    void* const at = ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) std::abort();
    return static_cast<cell*>(at);
  }

  void outcome(std::uint64_t id) {
    if (outcomes_[id].fetch_add(1) != 0) found_.add("task ", id, ": a second outcome");
  }

  void blame(pid_t pid, const char* what) {
    const std::lock_guard lock(mutex_);
    ++crashes_of_[pid];
    if (crashes_of_[pid] > kills_of_[pid])
      found_.add("a task is lost by a worker that was not killed, or that cost another one: ", what);
  }

  /// 17 for "procpool: map: task 17 of 200: ..."
  static std::uint64_t index_in(std::string_view text) {
    constexpr std::string_view before = ": task ";
    const std::size_t at = text.find(before);
    return at == text.npos ? none : std::strtoull(text.data() + at + before.size(), nullptr, 10);
  }

  violations& found_;
  inline static cell* runs_ = nullptr;
  cell* outcomes_ = nullptr;
  cell* terms_ = nullptr;  ///< retries, and whether it is limited
  static constexpr std::uint8_t limited_bit = 128;
  static constexpr std::uint64_t first_id = 1000;  // more than a call has elements: a place in a call is no id
  std::atomic<std::uint64_t> next_{first_id};
  std::uint64_t checked_ = first_id;

  std::mutex mutex_;
  std::set<std::tuple<std::uint64_t, std::size_t, std::size_t>> killed_;
  std::map<std::uint64_t, std::size_t> kills_in_;
  std::map<pid_t, int> kills_of_, crashes_of_;
};

}  // namespace storms
