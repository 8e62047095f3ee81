// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include <procpool/procpool.hpp>

#include "board.hpp"

namespace breakpoints {

using namespace std::chrono_literals;

/// A wait for a result that takes longer has hung.
inline constexpr auto patience = 10s;

/// The tasks of one round, and the judge of what becomes of them: each ends once, in its value or, if something was
/// killed, in the error that says so; none is begun twice, and what has a value was begun.
class round {
 public:
  enum class end { none, value, crashed, broken, terminated, stopped };

  explicit round(board& shared) : board_(shared) { board_.clear(); }

  board& shared() const { return board_; }

  enum class kind {
    plain,
    doomed,   ///< it kills its worker itself
    spare,    ///< it need not run, and its outcome is not asked for
    endless,  ///< it never returns: the pool has to end it
    retried,  ///< it is run again, once, if its worker dies
  };

  /// The number of a new task.
  int task(kind what = kind::plain) {
    if (count_ == most_tasks) std::abort();
    kinds_[count_] = what;
    return static_cast<int>(count_++);
  }

  void complain(const std::string& what) {
    if (!complaint_.empty()) return;
    complaint_ = what;
  }

  void ended(int id, end how) {
    if (std::exchange(ends_[static_cast<std::size_t>(id)], how) != end::none)
      complain("task " + std::to_string(id) + " has two outcomes");
  }

  /// Runs `ask`, which returns the outcome of a task, or throws it.
  template <class Ask, class T>
  void judge(int id, Ask ask, const T& expected) {
    judge(id, [&] { return ask() == expected; });
  }
  /// Runs `is_right`: whether the outcome is what it must be.
  template <class IsRight>
  void judge(int id, IsRight is_right) {
    const std::int64_t since = now_ns();
    try {
      if (!is_right()) complain("task " + std::to_string(id) + " has a wrong result");
      ended(id, end::value);
    } catch (...) {
      ended(id, why(id, std::current_exception()));
    }
    waited(since);
  }
  /// As judge(), for an outcome that is there.
  template <class R, class T>
  void judge_outcome(int id, const procpool::outcome<R>& outcome, const T& expected) {
    judge(id, [&] {
      if (outcome.has_error()) std::rethrow_exception(outcome.error());
      return outcome.value() == expected;
    });
  }

  /// Submits a task; nothing if that is refused, which is the task's outcome then.
  template <class Submit>
  auto submit(int id, Submit submit) -> std::optional<decltype(submit())> {
    try {
      return submit();
    } catch (...) {
      ended(id, why(id, std::current_exception()));
      return std::nullopt;
    }
  }

  /// Runs something that is no task of its own but must come to an end; true if it has done what it does.
  template <class Action>
  bool attempt(const char* what, Action action) {
    const std::int64_t since = now_ns();
    bool done = false;
    try {
      action();
      done = true;
    } catch (const procpool::worker_crashed& failure) {
      ++others_crashed_;
      note(failure);
    } catch (const procpool::pool_broken&) {
      ++board_.broken;
    } catch (const procpool::worker_start_error&) {
      ++board_.broken;
    } catch (const std::exception& failure) {
      complain(std::string(what) + ": " + failure.what());
    }
    waited(since);
    return done;
  }

  /// At the end: judges the counters, and tells the board.
  void close() {
    board_.values = 0;
    board_.crashed = others_crashed_;
    for (std::size_t id = 0; id != count_; ++id) {
      const int ran = board_.ran[id].load();
      const std::string name = "task " + std::to_string(id);
      if (ran > (kinds_[id] == kind::retried ? 2 : 1)) complain(name + " ran " + std::to_string(ran) + " times");
      switch (ends_[id]) {
        case end::none:
          if (kinds_[id] != kind::spare) complain(name + " has no outcome");
          break;
        case end::value:
          if (ran != 1 && kinds_[id] != kind::retried)
            complain(name + " has a value and ran " + std::to_string(ran) + " times");
          if (kinds_[id] == kind::doomed || kinds_[id] == kind::endless)
            complain(name + " has a value, and never returned");
          ++board_.values;
          break;
        case end::crashed:
          if (kinds_[id] != kind::doomed) ++board_.crashed;
          if (kinds_[id] == kind::retried) complain(name + " was not retried");
          break;
        case end::broken:
          ++board_.broken;
          break;
        case end::stopped:
          if (kinds_[id] != kind::endless) complain(name + " was stopped");
          break;
        case end::terminated:
          break;
      }
    }
    std::snprintf(board_.complaint, sizeof(board_.complaint), "%s", complaint_.c_str());
  }

  int count() const { return static_cast<int>(count_); }
  bool was_killed() const { return board_.killed_at.load() != 0; }

 private:
  end why(int id, const std::exception_ptr& failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const procpool::worker_crashed& crash) {
      note(crash);
      return end::crashed;
    } catch (const procpool::pool_broken&) {
      return end::broken;
    } catch (const procpool::pool_terminated&) {
      return end::terminated;
    } catch (const procpool::task_timeout&) {
      return end::stopped;
    } catch (const procpool::task_cancelled&) {
      return end::stopped;
    } catch (const procpool::timeout_error&) {
      complain("task " + std::to_string(id) + " hangs");
      throw;  // nothing that follows would come to an end
    } catch (const std::exception& other) {
      complain("task " + std::to_string(id) + " ended in: " + other.what());
    }
    return end::none;
  }

  void note(const procpool::worker_crashed& failure) {
    std::snprintf(board_.crash, sizeof(board_.crash), "%s", failure.what());
  }

  void waited(std::int64_t since) {
    const std::int64_t killed = board_.killed_at.load();
    if (killed == 0) return;
    board_.longest_ns = std::max(board_.longest_ns, now_ns() - std::max(since, killed));
  }

  board& board_;
  std::size_t count_ = 0;
  std::array<end, most_tasks> ends_{};
  std::array<kind, most_tasks> kinds_{};
  int others_crashed_ = 0;
  std::string complaint_;
};

}  // namespace breakpoints
